//! Load test: drives keep-alive connections with raw sockets and prints requests per second and server CPU.
//!
//! `load ADDRESS [CONNECTIONS] [SECONDS] [stream]`, e.g. `load 127.0.0.1:8089 16 5`. With a process id in the
//! environment variable `SIM_PID` the CPU time of that process is read from `/proc` (Linux).

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// CPU time used by a process, in clock ticks of 1/100 s.
fn cpu_ticks(pid: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.rsplit(')').next()?;
    let mut fields = after.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Sends requests one after the other until the time is over; gives how many were answered.
fn drive(address: &str, request: &[u8], streamed: bool, until: Instant) -> Result<u64, std::io::Error> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut done = 0;
    while Instant::now() < until {
        stream.write_all(request)?;
        let mut filled = 0;
        let mut wanted = usize::MAX;
        while filled < wanted {
            let space = buffer.get_mut(filled..).unwrap_or_default();
            let count = stream.read(space)?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            filled += count;
            let seen = buffer.get(..filled).unwrap_or_default();
            if wanted == usize::MAX && streamed {
                if seen.ends_with(b"\r\n0\r\n\r\n") {
                    break;
                }
            } else if wanted == usize::MAX
                && let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n")
            {
                let head = String::from_utf8_lossy(seen.get(..end).unwrap_or_default());
                let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
                wanted = end + 4 + length.and_then(|l| l.parse::<usize>().ok()).unwrap_or(0);
            }
        }
        done += 1;
    }
    Ok(done)
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let address = args.first().ok_or("usage: load ADDRESS [CONNECTIONS] [SECONDS] [stream]")?.clone();
    let connections: usize = args.get(1).map_or(Ok(16), |a| a.parse())?;
    let seconds: u64 = args.get(2).map_or(Ok(5), |a| a.parse())?;
    let streamed = args.get(3).is_some_and(|a| a == "stream");
    let body = format!(
        r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"Explain the CAP theorem in 3 sentences."}}],"max_tokens":150,"stream":{streamed}}}"#
    );
    let request = format!(
        "POST /openai/v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer sk-load\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let pid = std::env::var("SIM_PID").ok();
    let before = pid.as_deref().and_then(cpu_ticks);
    let begin = Instant::now();
    let until = begin + Duration::from_secs(seconds);
    let total: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|_| scope.spawn(|| drive(&address, request.as_bytes(), streamed, until)))
            .collect();
        threads.into_iter().filter_map(|t| t.join().ok()).try_fold(0, |sum, done| done.map(|d| sum + d))
    })?;
    let elapsed = begin.elapsed().as_secs_f64();
    println!("{connections} connections, {elapsed:.1} s: {:.0} requests/s", total as f64 / elapsed);
    if let (Some(before), Some(after)) = (before, pid.as_deref().and_then(cpu_ticks)) {
        let used = (after - before) as f64 / 100.0;
        println!(
            "server CPU {used:.2} s, {:.1} us a request, so {:.0} requests/s on a full core",
            used / total as f64 * 1e6,
            total as f64 / used
        );
    }
    Ok(())
}
