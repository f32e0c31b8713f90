//! Bytes in, frames out.

mod body;
mod connecting;
mod connection;
mod dns;
mod failure;
#[cfg_attr(not(feature = "gzip"), path = "no_gzip.rs")]
mod gzip;
pub mod http;
mod http1;
mod pools;
pub mod sse;
mod tls;
#[cfg_attr(not(feature = "websocket"), path = "no_websockets.rs")]
pub mod websockets;

pub use failure::is_stale_connection;
pub mod websocket_pool;
