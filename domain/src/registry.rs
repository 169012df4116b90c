//! The kinds of jobs that the product runs, and the schedules that it brings along: one line each.

use std::sync::Arc;

use streamspace_queue::{
    Registry, minutes,
    retention::Retention,
    schedule::{BuiltIn, Schedules},
};

use crate::{
    audit::{self, jobs as audit_jobs},
    identity::jobs as identity,
    jobs::jobs,
    links::jobs as links,
    mail::Mail,
};

/// What the bodies of jobs need from outside.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    pub retention: Retention,
    pub audit: audit::Kept,
    pub mail: Mail,
}

pub fn registry(ports: &Ports) -> Registry {
    let mail = Arc::new(ports.mail.clone());
    Registry::new()
        .register::<audit_jobs::Seal>(Arc::new(ports.audit))
        .register::<identity::DeleteTenant>(Arc::new(()))
        .register::<identity::DeleteUser>(Arc::new(()))
        .register::<identity::Expire>(Arc::new(()))
        .register::<jobs::Change>(Arc::new(()))
        .register::<jobs::Prune>(Arc::new(ports.retention))
        .register::<links::MailInvitation>(mail.clone())
        .register::<links::MailMoved>(mail.clone())
        .register::<links::MailReset>(mail.clone())
        .register::<links::MailVerification>(mail)
}

pub fn built_in() -> Vec<BuiltIn> {
    vec![
        BuiltIn::every::<jobs::Prune>("Pruning of jobs", minutes(10)),
        BuiltIn::every::<audit_jobs::Seal>("Sealing of the audit", audit_jobs::EVERY),
        BuiltIn::every::<identity::Expire>("Expiry of tokens, keys and invitations", minutes(10)),
    ]
}

/// What schedules may enqueue, with the built-in ones.
pub fn schedules(ports: &Ports) -> Schedules {
    Schedules::new(registry(ports), built_in())
}

#[cfg(test)]
mod tests {
    use streamspace_common::PLATFORM;

    use super::*;

    #[test]
    fn what_is_built_in_can_be_enqueued() {
        let registry = registry(&Ports::default());
        for schedule in built_in() {
            assert_eq!(registry.check(schedule.kind, PLATFORM, &schedule.args), Ok(()), "{}", schedule.name);
        }
    }

    /// A kind's name is its path.
    #[test]
    fn every_file_of_a_kind_is_registered_and_named_after_its_path() {
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found = Vec::new();
        for slice in std::fs::read_dir(source).expect("the sources").flatten() {
            let Ok(files) = std::fs::read_dir(slice.path().join("jobs")) else { continue };
            for file in files.flatten() {
                let path = file.path();
                let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
                if stem != "mod" && path.extension().is_some_and(|extension| extension == "rs") {
                    found.push(format!("{}.{stem}", slice.file_name().to_str().expect("a name")));
                }
            }
        }
        found.sort();
        let registry = registry(&Ports::default());
        assert_eq!(found, registry.names().collect::<Vec<_>>());
    }
}
