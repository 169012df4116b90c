//! What handlers take out of a request. Each refuses with a problem that says what is wrong.

pub(crate) mod body;
mod path;
mod query;
mod tx;

pub use body::{Faults, Valid, Validate};
pub use path::{Id, IdAndId, IdAndName, Name};
pub use query::Query;
pub(crate) use tx::Stored;
pub use tx::{ApiTx, Once};
