//! What the measuring programs share: the inputs they work on, the scenarios whose instructions are counted, and
//! the day that routing policies are measured by.

pub mod day;
pub mod inputs;
pub mod scenarios;
