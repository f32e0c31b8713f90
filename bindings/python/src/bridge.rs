//! From Tokio to an event loop: finished work queues up and wakes the loop once per batch.
//!
//! Runtime threads only push into the queue and write one byte to a socket; they never take the interpreter's lock.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use liter_llm_border::{Outcome, lock};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::task::AbortHandle;

use crate::errors::engine_error;
use crate::host::Job;

#[cfg(unix)]
type Socket = std::os::unix::net::UnixStream;
#[cfg(windows)]
type Socket = std::net::TcpStream;

#[cfg(unix)]
fn pair() -> std::io::Result<(Socket, Socket)> {
    Socket::pair()
}

#[cfg(windows)]
fn pair() -> std::io::Result<(Socket, Socket)> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let writer = Socket::connect(listener.local_addr()?)?;
    let (reader, _) = listener.accept()?;
    writer.set_nodelay(true)?;
    Ok((reader, writer))
}

enum Event {
    Done(u64, Outcome),
    Job(Job),
}

/// The part of a bridge that runtime threads see.
pub struct Shared {
    queue: Mutex<Vec<Event>>,
    signalled: AtomicBool,
    writer: Socket,
}

impl Shared {
    /// Hands over what a call came to.
    pub fn finish(&self, call: u64, outcome: Outcome) {
        self.push(Event::Done(call, outcome));
    }

    /// Asks the loop's thread to run a provider written in Python.
    pub fn run(&self, job: Job) {
        self.push(Event::Job(job));
    }

    fn push(&self, event: Event) {
        lock(&self.queue).push(event);
        self.wake();
    }

    fn wake(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            // A full or closed socket needs no further byte: the loop is awake or gone.
            drop((&self.writer).write(&[1]));
        }
    }
}

struct Waiting {
    future: Py<PyAny>,
    task: Option<AbortHandle>,
}

/// One per event loop: resolves the loop's futures.
#[pyclass(frozen, module = "liter_llm._native")]
pub struct Bridge {
    shared: Arc<Shared>,
    reader: Socket,
    waiting: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
}

impl Bridge {
    /// The part that runtime threads see.
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Keeps a future until its call is done and returns the call's number.
    pub fn expect(&self, future: Py<PyAny>) -> u64 {
        let call = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.waiting).insert(call, Waiting { future, task: None });
        call
    }

    /// Remembers how to stop a call.
    pub fn abort_with(&self, call: u64, task: AbortHandle) {
        if let Some(waiting) = lock(&self.waiting).get_mut(&call) {
            waiting.task = Some(task);
        }
    }

    fn settle(&self, py: Python<'_>, call: u64, outcome: Outcome) -> PyResult<()> {
        let Some(waiting) = lock(&self.waiting).remove(&call) else { return Ok(()) };
        let future = waiting.future.bind(py);
        if future.call_method0(pyo3::intern!(py, "done"))?.extract::<bool>()? {
            return Ok(());
        }
        match outcome {
            Outcome::Answer(answer, raw) => {
                let value = (PyBytes::new(py, &answer), PyBytes::new(py, &raw));
                future.call_method1(pyo3::intern!(py, "set_result"), (value,))?;
            }
            Outcome::Batch(batch) => {
                future.call_method1(pyo3::intern!(py, "set_result"), (PyBytes::new(py, &batch),))?;
            }
            Outcome::Error(error) => {
                let error = engine_error(&error).into_value(py);
                future.call_method1(pyo3::intern!(py, "set_exception"), (error,))?;
            }
        }
        Ok(())
    }
}

#[pymethods]
impl Bridge {
    #[new]
    fn new() -> PyResult<Self> {
        let (reader, writer) = pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let shared =
            Arc::new(Shared { queue: Mutex::new(Vec::new()), signalled: AtomicBool::new(false), writer });
        Ok(Self { shared, reader, waiting: Mutex::new(HashMap::new()), next: AtomicU64::new(1) })
    }

    /// The descriptor that becomes readable when there is something to drain.
    fn fileno(&self) -> PyResult<i64> {
        #[cfg(unix)]
        {
            Ok(i64::from(std::os::fd::AsRawFd::as_raw_fd(&self.reader)))
        }
        #[cfg(windows)]
        {
            i64::try_from(std::os::windows::io::AsRawSocket::as_raw_socket(&self.reader))
                .map_err(|_| PyOSError::new_err("socket handle out of range"))
        }
    }

    /// Makes the descriptor readable.
    fn wake(&self) {
        self.shared.wake();
    }

    /// Takes the waking byte and leaves the rest to `drain`: until that is called, no further byte comes.
    fn absorb(&self) -> PyResult<()> {
        let mut bytes = [0_u8; 64];
        match (&self.reader).read(&mut bytes) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(PyOSError::new_err(error)),
        }
    }

    /// Resolves the futures of everything that has finished. To be called on the loop's thread.
    ///
    /// An event that fails (its loop was closed) does not keep the others from theirs; its error is raised at the end.
    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        self.absorb()?;
        // In this order: what is pushed after the swap sends a byte of its own.
        self.shared.signalled.store(false, Ordering::Release);
        let events = std::mem::take(&mut *lock(&self.shared.queue));
        let mut outcome = Ok(());
        for event in events {
            let handled = match event {
                Event::Done(call, outcome) => self.settle(py, call, outcome),
                Event::Job(job) => job.start(py),
            };
            outcome = outcome.and(handled);
        }
        outcome
    }

    /// Stops a call: its connection is closed and its future is forgotten.
    fn cancel(&self, call: u64) {
        let waiting = lock(&self.waiting).remove(&call);
        if let Some(task) = waiting.as_ref().and_then(|waiting| waiting.task.as_ref()) {
            task.abort();
        }
    }

    /// Stops every call of this loop.
    fn close(&self) {
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        for task in waiting.values().filter_map(|waiting| waiting.task.as_ref()) {
            task.abort();
        }
    }
}
