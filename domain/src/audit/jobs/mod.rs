//! The kinds of this slice.

mod seal;

pub(crate) use self::seal::EVERY;
pub use self::seal::{Kept, Seal};
