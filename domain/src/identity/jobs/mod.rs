//! The kinds of this slice.

mod delete_tenant;
mod delete_user;
mod expire;

pub use self::{delete_tenant::DeleteTenant, delete_user::DeleteUser, expire::Expire};
