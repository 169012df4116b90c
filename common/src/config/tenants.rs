//! Organisations.

use super::{section::section, value::words};

words! {
    /// What a tenant may use.
    Tier { Free = "free", Standard = "standard", Enterprise = "enterprise" }
}

section! {
    /// Organisations.
    "tenants" => TenantsConfig {
        /// Tier of a tenant that is made without one: `free`, `standard` or `enterprise`.
        default_tier: Tier = Tier::Free;
    }
}
