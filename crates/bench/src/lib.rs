//! What the measuring programs share: the inputs they work on, and the scenarios whose instructions are counted.

pub mod inputs;
pub mod scenarios;
