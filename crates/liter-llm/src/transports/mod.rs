//! Bytes in, frames out.

mod failure;
pub mod http;
pub mod sse;
mod tls;
pub mod websockets;

pub use failure::is_stale_connection;
pub mod websocket_pool;
