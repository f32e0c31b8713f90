//! Bytes in, frames out.

mod body;
mod connecting;
mod connection;
mod dns;
mod failure;
pub mod http;
mod http1;
mod pools;
pub mod sse;
mod tls;
pub mod websockets;

pub use failure::is_stale_connection;
pub mod websocket_pool;
