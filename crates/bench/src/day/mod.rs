//! A day of synthetic traffic, with everything that goes wrong at providers, in compressed time: the scenario, the hosts
//! that live by it, the run of a policy through the engine's own client, and the figures beside the best choice in
//! hindsight.

pub mod figures;
pub mod host;
pub mod run;
pub mod scenario;
pub mod table;
