//! What is drawn on a terminal: pure functions from a model to lines, and the one place that redraws.

pub mod live;
pub mod model;
pub mod tree;
