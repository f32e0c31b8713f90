//! The simulator as a program: `liter-llm-sim [--config FILE] [--host HOST] [--port PORT] [--threads N] [--no-log]`.

use std::process::ExitCode;

use liter_llm_sim::{SimConfig, Simulator};

const USAGE: &str =
    "usage: liter-llm-sim [--config FILE] [--host HOST] [--port PORT] [--threads N] [--no-log]";

fn configure(mut args: impl Iterator<Item = String>) -> Result<Option<SimConfig>, String> {
    let mut config = SimConfig { port: 8089, ..SimConfig::default() };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "--config" => {
                let path = value()?;
                let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
                config = SimConfig::from_toml(&text).map_err(|e| format!("{path}: {e}"))?;
            }
            "--host" => config.host = value()?,
            "--port" => {
                config.port = value()?.parse().map_err(|_| "--port needs a number from 0 to 65535")?
            }
            "--threads" => config.threads = value()?.parse().map_err(|_| "--threads needs a number")?,
            "--no-log" => config.log_requests = false,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("unknown argument {other}\n{USAGE}")),
        }
    }
    Ok(Some(config))
}

fn main() -> ExitCode {
    let config = match configure(std::env::args().skip(1)) {
        Ok(Some(config)) => config,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    match Simulator::start(config) {
        Ok(sim) => {
            println!("listening on http://{}", sim.addr());
            loop {
                std::thread::park();
            }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
