//! Signing in.

use super::section::section;

section! {
    /// Signing in.
    "auth" => AuthConfig {
        /// Whether signing in takes a second factor, in tenants whose administrators have not said.
        mfa_required: bool = false;
    }
}
