//! What a whole cluster does, seen from outside. One program, so that it is linked once and its tests run side by side.

mod conformance;
mod devices;
mod embedded;
mod governance;
mod identity;
mod jobs;
mod kubectl;
mod volumes;
