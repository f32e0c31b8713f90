//! The simulator as a program: `liter-llm-sim [--config FILE] [--host HOST] [--port PORT] [--threads N] [--no-log]`,
//! or, to replay test vectors, `liter-llm-sim --vectors DIR [--port PORT]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use liter_llm_sim::{SimConfig, SimError, Simulator, VectorServer};

const USAGE: &str =
    "usage: liter-llm-sim [--config FILE] [--host HOST] [--port PORT] [--threads N] [--no-log]
       liter-llm-sim --vectors DIR [--port PORT]";

/// What to serve: with a folder its test vectors, else the simulator.
type Asked = (SimConfig, Option<PathBuf>);

fn configure(mut args: impl Iterator<Item = String>) -> Result<Option<Asked>, String> {
    let mut vectors = None;
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
            "--vectors" => vectors = Some(PathBuf::from(value()?)),
            "--no-log" => config.log_requests = false,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("unknown argument {other}\n{USAGE}")),
        }
    }
    Ok(Some((config, vectors)))
}

fn main() -> ExitCode {
    let (config, vectors) = match configure(std::env::args().skip(1)) {
        Ok(Some(asked)) => asked,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let outcome = match vectors {
        Some(folder) => VectorServer::start(&folder, config.port).map(|server| serve(server.addr(), server)),
        None => Simulator::start(config).map(|sim| serve(sim.addr(), sim)),
    };
    match outcome {
        Ok(never) => match never {},
        Err(error) => fail(&error),
    }
}

/// Says where it listens, and keeps the server until the program is ended.
fn serve<T>(address: SocketAddr, _server: T) -> std::convert::Infallible {
    println!("listening on http://{address}");
    loop {
        std::thread::park();
    }
}

fn fail(error: &SimError) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}
