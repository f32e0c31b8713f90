//! Layers around a provider. They see the vocabulary in `core` only, and each owns its state.

pub mod attempts;
pub mod deadline;
