//! The scheduler's core by tables and against a plain reading of the rules, and the whole of it before an API server. One
//! program, so that it is linked once and its tests run side by side.

mod devices;
mod disks;
mod end_to_end;
mod filters;
mod preempt;
mod queue;
mod reference;
mod support;
mod walked;
