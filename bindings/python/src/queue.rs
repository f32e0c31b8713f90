//! Work for a Python thread: runtime threads only push into the queue, they never take the interpreter's lock.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

use liter_llm_border::lock;
use pyo3::prelude::*;

use crate::runtime::rest_if_exiting;

/// With more items than this in the queue, those that nobody waits for any more are thrown away.
const MANY: usize = 64;

/// Something to do for somebody who may give up waiting for it.
pub trait Awaited: Send {
    /// Whether somebody still waits.
    fn is_awaited(&self) -> bool;
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

/// Things to do, in the order they came.
pub struct Queue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { items: VecDeque::new(), closed: false }), ready: Condvar::new() }
    }
}

impl<T: Awaited> Queue<T> {
    /// False when nobody will do it.
    pub fn push(&self, item: T) -> bool {
        let mut state = lock(&self.state);
        if state.closed {
            return false;
        }
        if state.items.len() >= MANY {
            // The thread hangs; who asked has gone on without an answer.
            state.items.retain(Awaited::is_awaited);
        }
        state.items.push_back(item);
        drop(state);
        self.ready.notify_one();
        true
    }

    /// Waits for the next one that somebody waits for; `None` when there will be no more.
    pub fn next(&self, py: Python<'_>) -> Option<T> {
        // What is there already is done without giving up the interpreter's lock in between: in a program that
        // computes, it takes long to get it back.
        if let Some(item) = self.present() {
            return Some(item);
        }
        py.detach(|| {
            let mut state = lock(&self.state);
            let next = loop {
                match state.items.pop_front() {
                    Some(item) if item.is_awaited() => break Some(item),
                    Some(_) => {}
                    None if state.closed => break None,
                    None => state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(state);
            rest_if_exiting();
            next
        })
    }

    fn present(&self) -> Option<T> {
        let mut state = lock(&self.state);
        std::iter::from_fn(|| state.items.pop_front()).find(Awaited::is_awaited)
    }

    /// Says that there will be no more, or that nobody will do what is there.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.ready.notify_all();
    }
}
