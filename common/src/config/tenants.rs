//! Organisations.

use super::{section::section, value::words};

words! {
    /// What a tenant may use.
    Tier { Free = "free", Standard = "standard", Enterprise = "enterprise" }
}

words! {
    /// Who may make a tenant.
    Registration { Closed = "closed", Invite = "invite", Open = "open" }
}

section! {
    /// Organisations.
    "tenants" => TenantsConfig {
        /// Tier of a tenant that is made without one: `free`, `standard` or `enterprise`.
        default_tier: Tier = Tier::Free;
        /// Who makes tenants: `closed`, those who operate the installation; `invite`, also whom they invite; `open`, everybody.
        registration: Registration = Registration::Closed;
    }
}
