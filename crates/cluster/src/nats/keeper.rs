//! Keeps a member's credentials fresh: a new working token in the middle of each one's life, for as long as the member is in the fleet.
//!
//! A node that was away longer than its token lives asks by its renewal token, over a connection of its own, and then works again.

use std::{path::PathBuf, sync::Arc, time::Duration};

use edgeward_model::{
    EdgeError, ErrorKind, NodeId,
    limits::{REFUSED_PAUSE_MAX, SEND_TIMEOUT},
};
use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    backoff,
    error::BackboneError,
    message::Message,
    nats::{
        Credentials, Link, NatsBackbone, Tls,
        admission::CredentialsTtl,
        enrolment::{Enrolment, certificate_file},
        errand::{Errand, Failed},
        fleet_keys::FleetKeys,
        jwt::Claims,
        renewal::{RENEW, RenewAnswer, RenewRequest},
    },
    subject::Subject,
};

/// How often it is looked whether servers that refused good credentials take them now.
const CONNECTED_LOOK: Duration = Duration::from_secs(1);

/// How a member's credentials are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialState {
    /// They are good until then, and will be renewed before.
    Valid {
        /// When they end.
        until: Timestamp,
    },
    /// They are to be renewed, and nobody who could do it was reached. It is tried again, for ever.
    Stale {
        /// When they end, or ended.
        until: Timestamp,
        /// Why nobody was reached, for people.
        why: String,
    },
    /// The fleet does not take this member any more. It is asked again now and then, in case that was a mistake.
    Refused {
        /// What the fleet says, for people.
        why: String,
    },
}

/// Renews the credentials of one member until all clones are dropped. The member's [`NatsBackbone`] must live as long: it tells what a broker
/// refused.
#[derive(Clone)]
pub(super) struct CredentialKeeper {
    link: Link,
    credentials: Credentials,
    state: watch::Sender<CredentialState>,
    _task: Arc<AbortOnDropHandle<()>>,
}

impl CredentialKeeper {
    /// Keeps those of a node, which connects as [`Enrolment::options`] of this folder say. New ones are kept there.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the backbone shows no credentials, or their token is damaged.
    pub(super) fn of_node(enrolment: Enrolment, folder: PathBuf, backbone: &NatsBackbone) -> Result<Self, EdgeError> {
        let working = enrolment.working().to_owned();
        let tls = Tls::Ca(certificate_file(&folder));
        Self::start(backbone, &working, Source::Hub { enrolment: Box::new(enrolment), tls, folder })
    }

    /// The first credentials of a hub, with a new key; [`of_hub`](Self::of_hub) keeps them fresh.
    pub(super) fn hub_credentials(keys: &FleetKeys, hub: &NodeId, ttl: CredentialsTtl, now: Timestamp) -> Result<Credentials, EdgeError> {
        let key = nkeys::KeyPair::new_user();
        let token = keys.authority().hub(hub, &key.public_key(), ttl.ends_at(now)?, now)?;
        let seed = key.seed().map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to make a key").with_source(error))?;
        Credentials::new(&seed, token)
    }

    /// Keeps those of a hub, which signs for itself.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the backbone shows no credentials.
    pub(super) fn of_hub(keys: Arc<FleetKeys>, ttl: CredentialsTtl, backbone: &NatsBackbone) -> Result<Self, EdgeError> {
        let credentials = shown_by(backbone)?;
        Self::start(backbone, &credentials.jwt(), Source::Itself { keys, ttl })
    }

    fn start(backbone: &NatsBackbone, token: &str, source: Source) -> Result<Self, EdgeError> {
        let credentials = shown_by(backbone)?;
        let life = Life::left(token, Timestamp::now(), Instant::now())?;
        let (state, link) = (watch::Sender::new(CredentialState::Valid { until: life.until }), backbone.link.clone());
        let task = Task { link: link.clone(), credentials: credentials.clone(), source, state: state.clone() };
        let task = AbortOnDropHandle::new(tokio::spawn(task.run(life)));
        Ok(Self { link, credentials, state, _task: Arc::new(task) })
    }

    /// Ends the connection and makes no other, and shows why, until it is [released](Self::release).
    pub(super) async fn hold(&self, why: String) {
        self.credentials.hold(true);
        tracing::error!(member = %self.link.member, why, "the fleet refuses this process");
        self.state.send_replace(CredentialState::Refused { why });
        self.link.break_off().await;
    }

    /// Connects again.
    pub(super) fn release(&self) {
        self.credentials.hold(false);
    }

    /// How the credentials are.
    pub(super) fn state(&self) -> watch::Receiver<CredentialState> {
        self.state.subscribe()
    }
}

fn shown_by(backbone: &NatsBackbone) -> Result<Credentials, EdgeError> {
    backbone.link.credentials.clone().ok_or_else(|| EdgeError::invalid("the connection to NATS shows no credentials that could be renewed"))
}

/// Who signs.
enum Source {
    /// The hub, which is asked.
    Hub { enrolment: Box<Enrolment>, tls: Tls, folder: PathBuf },
    /// The member itself, which is a hub.
    Itself { keys: Arc<FleetKeys>, ttl: CredentialsTtl },
}

/// When a token is to be renewed and no longer to be used. The member's own clock may be wrong: it counts from when the token came.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Life {
    until: Timestamp,
    renew_at: Instant,
    /// The connection that shows it ends here at the latest, a while before the broker would end it.
    change_at: Instant,
}

impl Life {
    /// Of a token that was signed in this moment.
    fn whole(token: &str, now: Instant) -> Result<Self, EdgeError> {
        let (until, life) = times(token)?;
        Ok(Self::of(until, life, life, now))
    }

    /// Of a token that was kept, by the clock. When that is wrong it is renewed too early, or when a broker refuses it.
    fn left(token: &str, clock: Timestamp, now: Instant) -> Result<Self, EdgeError> {
        let (until, life) = times(token)?;
        let left = Duration::try_from(until.duration_since(clock)).unwrap_or_default();
        Ok(Self::of(until, life, if left > life { Duration::ZERO } else { left }, now))
    }

    fn of(until: Timestamp, life: Duration, left: Duration, now: Instant) -> Self {
        // About half of the life, and not all members in one moment.
        let late = life * 9 / 20 + backoff::some_of(life / 10);
        Self { until, renew_at: now + left.saturating_sub(late), change_at: now + left.saturating_sub(life / 10) }
    }
}

/// When a token ends, and how long it lives in all.
fn times(token: &str) -> Result<(Timestamp, Duration), EdgeError> {
    let claims = Claims::read(token)?;
    claims.ends_at().zip(claims.life()).ok_or_else(|| EdgeError::invalid("a token to work with does not end"))
}

struct Task {
    link: Link,
    credentials: Credentials,
    source: Source,
    state: watch::Sender<CredentialState>,
}

impl Task {
    async fn run(mut self, mut life: Life) {
        let (mut failed, mut in_vain) = (0, 0);
        // How often the connection had been made when the present token came.
        let mut connects = None;
        loop {
            tokio::select! {
                () = sleep_until(life.renew_at) => {}
                () = self.credentials.refused() => if connects == Some(self.link.connects()) {
                    in_vain += 1;
                    self.is_refused("the servers refuse credentials that were just signed; do they trust this fleet, and are their clocks right?".to_owned());
                    sleep(backoff::pause(in_vain)).await;
                },
                () = self.connected_after(connects), if in_vain > 0 => {
                    in_vain = 0;
                    self.show(CredentialState::Valid { until: life.until });
                    continue;
                }
                // It begins with a new token after that.
                () = self.credentials.held(true) => self.credentials.held(false).await,
            }
            let pause = match self.renew().await {
                Ok((token, next)) => {
                    failed = 0;
                    connects = Some(self.link.connects());
                    self.take(token, next, in_vain == 0).await;
                    self.link.change_over(life.change_at).await;
                    life = next;
                    continue;
                }
                Err(Failed::Refused) => self.is_refused("the servers of the fleet refuse its key; was this node removed?".to_owned()),
                Err(Failed::Answered(error)) if error.kind() == ErrorKind::Forbidden => self.is_refused(error.to_string()),
                Err(Failed::Answered(error) | Failed::Unreached(error) | Failed::Untrusted(error)) => {
                    failed += 1;
                    self.show(CredentialState::Stale { until: life.until, why: error.chain() });
                    backoff::pause(failed)
                }
            };
            sleep(pause).await;
        }
    }

    fn is_refused(&self, why: String) -> Duration {
        self.show(CredentialState::Refused { why });
        REFUSED_PAUSE_MAX / 2 + backoff::some_of(REFUSED_PAUSE_MAX / 2)
    }

    fn show(&self, now: CredentialState) {
        self.state.send_if_modified(|state| {
            // What is shown of who is held back stays.
            let is_news = *state != now && !self.credentials.is_held();
            if is_news {
                match &now {
                    CredentialState::Valid { until } => tracing::debug!(member = %self.link.member, %until, "credentials renewed"),
                    CredentialState::Stale { until, why } => {
                        tracing::warn!(member = %self.link.member, %until, why, "credentials cannot be renewed now");
                    }
                    CredentialState::Refused { why } => tracing::error!(member = %self.link.member, why, "the fleet refuses this member"),
                }
                *state = now;
            }
            is_news
        });
    }

    /// Returns when the connection was made anew.
    async fn connected_after(&self, connects: Option<u64>) {
        while connects.is_some_and(|connects| self.link.connects() <= connects) {
            sleep(CONNECTED_LOOK).await;
        }
    }

    /// Uses and keeps a new token, which is good as far as `is_good` says.
    async fn take(&mut self, token: String, life: Life, is_good: bool) {
        self.credentials.renew(token.clone());
        if is_good {
            self.show(CredentialState::Valid { until: life.until });
        }
        let Source::Hub { enrolment, folder, .. } = &mut self.source else { return };
        enrolment.set_working(token);
        let (kept, folder) = (enrolment.clone(), folder.clone());
        let stored = tokio::task::spawn_blocking(move || kept.store(&folder)).await;
        // It is a shortcut for the next start, which can do without it.
        if let Ok(Err(error)) = stored {
            tracing::warn!(member = %self.link.member, error = error.chain(), "new credentials are not kept");
        }
    }

    async fn renew(&self) -> Result<(String, Life), Failed> {
        let token = match &self.source {
            Source::Hub { enrolment, tls, .. } => self.ask(enrolment, tls).await?,
            Source::Itself { keys, ttl } => self.sign(keys, *ttl, Timestamp::now()).map_err(Failed::Unreached)?,
        };
        let life = Life::whole(&token, Instant::now()).map_err(Failed::Answered)?;
        Ok((token, life))
    }

    fn sign(&self, keys: &FleetKeys, ttl: CredentialsTtl, now: Timestamp) -> Result<String, EdgeError> {
        keys.authority().hub(&self.link.member, &self.credentials.key().public_key(), ttl.ends_at(now)?, now)
    }

    /// Asks the hub, over the connection that there is, or one of its own.
    async fn ask(&self, enrolment: &Enrolment, tls: &Tls) -> Result<String, Failed> {
        let question = Subject::to_hub(enrolment.node().clone(), RENEW);
        let payload = RenewRequest::new(self.credentials.key().public_key()).to_payload();
        let asked = self.link.ask(&question, Message::new(payload.clone()), SEND_TIMEOUT).await;
        let answer = match asked {
            Ok(answer) => answer,
            Err(BackboneError::Answered(error)) => return Err(Failed::Answered(error)),
            Err(BackboneError::Disconnected(_)) => {
                let credentials = enrolment.renewal().map_err(Failed::Unreached)?;
                Errand { servers: enrolment.servers(), tls, credentials }.ask(&question, payload).await?
            }
            Err(error) => return Err(Failed::Unreached(error.into())),
        };
        RenewAnswer::read(&answer.payload).map(|answer| answer.working).map_err(Failed::Answered)
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use nkeys::KeyPair;

    use super::*;
    use crate::nats::authority::Authority;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_around_the_middle_of_its_life_and_left_before_its_end() {
        let (now, clock, hour) = (Instant::now(), Timestamp::UNIX_EPOCH, SignedDuration::from_hours(1));
        let (node, key) = (NodeId::new("edge-1").expect("valid"), KeyPair::new_user().public_key());
        let token = Authority::new().node(&node, &key, clock + hour, clock).expect("signed");
        let minutes = |at: Instant| (at - now).as_secs_f64() / 60.0;
        let spread: Vec<f64> = (0..100).map(|_| minutes(Life::whole(&token, now).expect("it ends").renew_at)).collect();
        assert!(
            spread.iter().all(|at| (27.0..=33.0).contains(at)) && spread.iter().any(|at| *at < 30.0) && spread.iter().any(|at| *at > 30.0)
        );
        let life = Life::whole(&token, now).expect("it ends");
        assert_eq!((minutes(life.change_at), life.until), (54.0, clock + hour));
        let left = |clock: Timestamp| {
            let life = Life::left(&token, clock, now).expect("it ends");
            (minutes(life.renew_at), minutes(life.change_at))
        };
        let (renew, change) = left(clock + SignedDuration::from_mins(20));
        assert!((7.0..=13.0).contains(&renew) && (change - 34.0).abs() < 1e-6, "{renew} {change}");
        for wrong in [clock + hour, clock + SignedDuration::from_hours(9000), clock - SignedDuration::from_secs(1)] {
            assert_eq!(left(wrong), (0.0, 0.0), "at once");
        }
        let renewal = Authority::new().renewal(&node, &key, clock).expect("signed");
        assert!(Life::whole(&renewal, now).is_err() && Life::whole("", now).is_err());
    }
}
