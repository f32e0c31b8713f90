//! Which deployment answers a call: rules, policies, statistics. It sees the vocabulary in `core` only.

pub mod assign;
#[cfg(test)]
mod bench_members;
pub mod budget;
pub mod calendar;
pub mod canary;
pub mod cost;
pub mod course;
pub mod custom;
mod experiments;
pub mod figures;
pub mod guard;
pub mod latency;
pub mod least_busy;
pub mod ledger;
#[cfg_attr(not(feature = "sqlite"), path = "ledger_no_file.rs")]
mod ledger_file;
mod ledger_memory;
mod length;
pub mod measured;
pub mod member;
pub mod mirror;
pub mod money;
pub mod needs;
pub mod only;
pub mod options;
pub mod paid;
mod percentiles;
pub mod policy;
pub mod price;
mod reasons;
pub mod router;
pub mod sequential;
mod silence;
pub mod stats;
mod trial;
pub mod weighted;
