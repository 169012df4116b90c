//! Whose account it is that a provider speaks of, and what their groups give them.
//!
//! An account is found by issuer and subject, once it is linked. Before, it is found by its e-mail
//! address, and is linked at once only when both sides have verified that: else whoever writes an
//! address into a profile somewhere would be whoever has it here. Those who have more to lose (admins,
//! owners, platform administrators, whoever has a second factor) are asked themselves in any case: a
//! provider is set up by an admin, and nobody becomes by it what they could not become otherwise.
//!
//! People rise. So whoever is an admin, an owner or a platform administrator by now comes in through what
//! they have linked themselves, or through a provider that nobody below them could have set up: at every
//! sign-in that is asked anew. Who links is asked for how they came in: a sign-in through a provider shows
//! no more than the provider has said, and neither proves an identity nor makes it the person's own.

use serde_json::json;
use streamspace_common::{Role, UserId};
use streamspace_queue::Tx;

use super::{
    Claims, Error, Untrue,
    identities_store::{self, Identity, NewIdentity},
    mapping::{Given, given},
    model::{Provider, Settings},
};
use crate::{
    audit::{self, Entry},
    identity::{self, ChangeUser, NewUser, User},
    teams::{self, Whom},
};

const LONGEST_NAME: usize = 200;

/// Whoever links an identity to the account that they are in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linking {
    pub user: UserId,
    /// They came in by something of their own, such as a password, and through no provider.
    pub in_person: bool,
}

/// The account, linked and made if need be, with what groups give. The transaction is the
/// installation's, in the tenant.
pub(super) async fn of(
    tx: &mut Tx,
    provider: &Provider,
    claims: &Claims,
    linking: Option<Linking>,
) -> Result<Identity, Error> {
    let settings = &provider.settings;
    let subject = claims.subject().ok_or(Untrue::Subject)?;
    // Unknown is not none: nobody loses a role because a provider does not tell.
    if !settings.group_mapping.is_empty() && claims.is_elsewhere(&settings.groups_claim) {
        return Err(Error::ManyGroups);
    }
    let given = given(settings, &claims.list(&settings.groups_claim).unwrap_or_default());
    let tenant = tx.tenant();
    let conn = tx.conn().await?;
    // The person first, as by all that changes them or ends what they have.
    if let Some(user) = identities_store::whose(conn, tenant, &settings.provider_url, subject).await? {
        identity::lock(conn, tenant, user).await?;
    }
    let identity = match identities_store::identity(conn, tenant, &settings.provider_url, subject).await? {
        Some(identity) => identity,
        None => link(tx, settings, claims, &given, subject, linking).await?,
    };
    let person = identity::lock(tx.conn().await?, tenant, identity.user).await?;
    if !person.active {
        return Err(Error::Disabled);
    }
    check(tx, provider, claims, &identity, &person, linking).await?;
    give_role(tx, provider, &person, &given).await?;
    give_teams(tx, &identity, &given).await?;
    Ok(identity)
}

/// Whether it is the account of whoever comes. One that was made for an address that nobody vouched for
/// is until somebody proves by mail that the address is theirs: that may be somebody else.
async fn check(
    tx: &mut Tx,
    provider: &Provider,
    claims: &Claims,
    identity: &Identity,
    person: &User,
    linking: Option<Linking>,
) -> Result<(), Error> {
    let settings = &provider.settings;
    let link_required = || Error::LinkRequired { provider: settings.name.clone() };
    let tenant = tx.tenant();
    // What they have linked is what this provider says. Another one of the same issuer is set up by somebody
    // else, to whom its people's sign-ins may be worth something.
    let is_linked = identity.linked_through.as_ref() == Some(&settings.name);
    match linking {
        Some(linking) if linking.user != identity.user => return Err(Error::LinkedToAnother),
        Some(linking) if linking.in_person && !is_linked => {
            identities_store::set_linked(tx.conn().await?, tenant, identity.id, &settings.name).await?;
            return record_link(tx, settings, claims, identity.user, "sign_in").await;
        }
        _ => {}
    }
    if is_linked {
        return Ok(());
    }
    if !may_speak_for(provider, person) {
        return Err(link_required());
    }
    if identity.proven {
        return Ok(());
    }
    let address = claims.text(&settings.email_claim).unwrap_or_default();
    if is_the_address(address, person) && vouches(settings, claims) && !person.mfa_enabled {
        return Ok(identities_store::set_proven(tx.conn().await?, tenant, identity.id).await?);
    }
    if person.email_verified { Err(link_required()) } else { Ok(()) }
}

/// Whether a provider's word is enough for what somebody is by now. Of those above its maker it is not:
/// an admin would become an owner by it. What makes admins only owners set up and change, what stands in
/// the configuration only the operator.
fn may_speak_for(provider: &Provider, person: &User) -> bool {
    let (the_operators, an_owners) = (provider.id.is_none(), provider.settings.highest_role() >= Role::Admin);
    the_operators || (!person.platform_admin && (person.role < Role::Admin || an_owners))
}

/// The database folds more letters than mail servers do: what only looks like an address is another's.
fn is_the_address(address: &str, person: &User) -> bool {
    address.eq_ignore_ascii_case(&person.email)
}

/// The first time that this identity comes.
async fn link(
    tx: &mut Tx,
    settings: &Settings,
    claims: &Claims,
    given: &Given,
    subject: &str,
    linking: Option<Linking>,
) -> Result<Identity, Error> {
    let tenant = tx.tenant();
    let (user, by) = match linking {
        Some(linking) if linking.in_person => (linking.user, "sign_in"),
        Some(linking) => (linking.user, "provider"),
        None => {
            let email = claims.text(&settings.email_claim).ok_or(Error::NoEmail)?;
            match identity::person_named(tx.conn().await?, tenant, email).await? {
                None => (create(tx, settings, claims, given, email).await?, "creation"),
                Some(person) if !person.active => return Err(Error::Disabled),
                Some(person)
                    if vouches(settings, claims)
                        && is_the_address(email, &person)
                        && may_be_linked(&person) =>
                {
                    (person.id, "email")
                }
                Some(_) => return Err(Error::LinkRequired { provider: settings.name.clone() }),
            }
        }
    };
    let conn = tx.conn().await?;
    let proven = match by {
        "creation" => vouches(settings, claims),
        // Through an identity that is not proven whoever comes proves no other.
        "provider" => !identities_store::has_unproven(conn, tenant, user).await?,
        _ => true,
    };
    let new = NewIdentity {
        user,
        issuer: &settings.provider_url,
        subject,
        proven,
        linked_through: (by == "sign_in").then_some(&settings.name),
    };
    let identity = identities_store::insert_identity(conn, tenant, new).await?;
    record_link(tx, settings, claims, user, by).await?;
    Ok(identity)
}

async fn record_link(
    tx: &mut Tx,
    settings: &Settings,
    claims: &Claims,
    user: UserId,
    by: &str,
) -> Result<(), Error> {
    let linked = Entry::new("users.link_identity", "user", user).after(json!({
        "provider": settings.name, "issuer": settings.provider_url, "subject": claims.subject(), "by": by,
    }));
    Ok(audit::record(tx, linked).await?)
}

/// Whether the provider says that the address is this person's. It says so of the standard's claim, and
/// of what another holds it says nothing.
fn vouches(settings: &Settings, claims: &Claims) -> bool {
    settings.email_claim == "email" && claims.is_true("email_verified")
}

fn may_be_linked(person: &User) -> bool {
    person.email_verified && person.role < Role::Admin && !person.platform_admin && !person.mfa_enabled
}

async fn create(
    tx: &mut Tx,
    settings: &Settings,
    claims: &Claims,
    given: &Given,
    email: &str,
) -> Result<UserId, Error> {
    let tenant = tx.tenant();
    let wanted = claims.text(&settings.username_claim).unwrap_or(email);
    let username = identity::free_username(tx.conn().await?, tenant, wanted).await?;
    let name: String = claims
        .text("name")
        .unwrap_or(&username)
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST_NAME)
        .collect();
    let new = NewUser {
        email: email.to_owned(),
        name: if name.trim().is_empty() { username.clone() } else { name },
        username: Some(username),
        role: given.role.unwrap_or(settings.default_role),
        password_hash: None,
    };
    let made = identity::insert_user(tx, tenant, new, vouches(settings, claims)).await;
    made.map(|user| user.id).map_err(|error| match error {
        identity::Error::Invalid { field: "/email", .. } => Error::NoEmail,
        identity::Error::EmailTaken | identity::Error::UsernameTaken => Error::Again,
        other => other.into(),
    })
}

/// Owners are made by people, and so unmade; and whoever could not be changed by those who set the provider
/// up is not by their provider.
async fn give_role(tx: &mut Tx, provider: &Provider, person: &User, given: &Given) -> Result<(), Error> {
    match given.role {
        Some(role) if role != person.role && person.role < Role::Owner && may_speak_for(provider, person) => {
            let change = ChangeUser { role: Some(role), ..ChangeUser::default() };
            identity::change_user(tx, person.id, change).await?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Memberships that groups gave follow them. Those that people gave stay as they are.
async fn give_teams(tx: &mut Tx, identity: &Identity, given: &Given) -> Result<(), Error> {
    let (tenant, user) = (tx.tenant(), identity.user);
    let before = identities_store::memberships(tx.conn().await?, tenant, identity.id).await?;
    for (&team, &role) in &given.teams {
        let Some(now) = before.get(&team) else {
            match teams::add_member(tx, team, Whom::User(user), role).await {
                Ok(_) => {
                    identities_store::insert_membership(tx.conn().await?, tenant, identity, team).await?
                }
                Err(teams::Error::AlreadyMember | teams::Error::NoTeam) => {}
                Err(error) => return Err(error.into()),
            }
            continue;
        };
        if *now != role {
            kept(teams::change_member(tx, team, user, role).await.map(drop))?;
        }
    }
    for team in before.into_keys().filter(|team| !given.teams.contains_key(team)) {
        kept(teams::remove_member(tx, team, user).await)?;
    }
    Ok(())
}

/// Whom somebody has made the team's last owner meanwhile stays that.
fn kept(result: Result<(), teams::Error>) -> Result<(), Error> {
    match result {
        Err(teams::Error::LastOwner | teams::Error::NoTeam | teams::Error::NoMember) => Ok(()),
        other => Ok(other?),
    }
}
