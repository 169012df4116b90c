//! The kinds of this slice.

mod change;
mod prune;

pub use self::{change::Change, prune::Prune};
