//! Layers around a provider. They see the vocabulary in `core` only, and each owns its state.

pub mod attempts;
pub mod breaker;
pub mod breaker_layer;
pub mod breakers;
pub mod bucket;
pub mod cache;
pub mod cache_key;
pub mod deadline;
pub mod hedge;
pub mod limit;
pub mod limit_layer;
pub mod options;
pub mod quota;
pub mod retry;
pub mod single_flight;
pub use crate::core::sync;
