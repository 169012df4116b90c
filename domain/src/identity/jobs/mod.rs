//! The kinds of this slice.

mod expire;

pub use self::expire::Expire;
