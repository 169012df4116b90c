//! Who may do what, as people read it: rendered from the two tables that decide it.

use std::fmt::Write as _;

use streamspace_common::Role;
use streamspace_domain::identity::{Least, Permission};

use crate::operations::{Access, OPERATIONS};

const HEAD: &str = "# Permissions

Generated from the code: `make generate`. Each operation of the API names the permission that it needs;
what one then *sees* is each operation's own business, and what one does not see answers `404`.

A role has what those before it have: viewer, user, operator, admin, owner. A platform administrator has,
beyond the role in their own tenant, what concerns the installation. A key reaches no further than its
owner, and only where one of its scopes says so.

";

/// `docs/permissions.md`.
pub fn permissions_md() -> String {
    let mut text = HEAD.to_owned();
    text.push_str("| permission | lets one | viewer | user | operator | admin | owner | platform |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for permission in Permission::ALL {
        let _ = write!(text, "| `{}` | {} |", permission.as_str(), permission.about());
        let (least, platform) = match permission.least() {
            Least::Role(role) => (Some(role), false),
            Least::RoleOrPlatform(role) => (Some(role), true),
            Least::Platform => (None, true),
        };
        for role in Role::ALL {
            text.push_str(if least.is_some_and(|least| role >= least) { " yes |" } else { " |" });
        }
        text.push_str(if platform { " yes |\n" } else { " |\n" });
    }
    text.push_str("\n## Operations\n\n| operation | needs | scope of a key |\n|---|---|---|\n");
    for operation in OPERATIONS.iter().filter(|operation| !operation.path.starts_with("/api/docs/")) {
        let (needs, scope) = match operation.access {
            Access::Public | Access::Unlimited => ("–".to_owned(), "–".to_owned()),
            Access::Needs { permission, area } => {
                let act = if operation.method == "GET" { "read" } else { "write" };
                let scope = area.map_or_else(|| "–".to_owned(), |area| format!("`{area}.{act}`"));
                (format!("`{}`", permission.as_str()), scope)
            }
        };
        let _ = writeln!(text, "| `{} {}` | {needs} | {scope} |", operation.method, operation.path);
    }
    text
}
