//! Whether a node takes what its hub assigns anew: not while its owner says so, nor outside its hours.
//!
//! What it runs goes on either way. The owner's word is the document `edgeward.local.hold` of the node, which never leaves it.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use edgeward_model::{DocumentName, EdgeError, limits::NAME_BYTES_MAX};
use edgeward_sync::{Document, Documents, Precondition, policy::LOCAL_PREFIX};
use jiff::{Timestamp, civil::Time, tz::TimeZone};
use serde::{Deserialize, Serialize};

use crate::stored;

/// The only key.
const VETO: &str = "veto";

/// Hours of the day in which a node takes updates, by its own time zone. As text: `02:00-04:30`; the end may be on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateHours {
    from: Time,
    to: Time,
}

impl UpdateHours {
    /// Whether they include this time of the day.
    pub fn include(&self, time: Time) -> bool {
        if self.from <= self.to { (self.from..self.to).contains(&time) } else { time >= self.from || time < self.to }
    }
}

impl fmt::Display for UpdateHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from.strftime("%H:%M"), self.to.strftime("%H:%M"))
    }
}

impl FromStr for UpdateHours {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        let time = |text: &str| Time::strptime("%H:%M", text).ok();
        let hours = text.split_once('-').and_then(|(from, to)| Some(Self { from: time(from)?, to: time(to)? }));
        hours.filter(|hours| hours.from != hours.to).ok_or_else(|| {
            let shown: String = text.chars().take(32).collect();
            EdgeError::invalid(format!("`{}` are no hours; write them as `02:00-04:30`", shown.escape_debug()))
        })
    }
}

/// That a node is to take no updates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Veto {
    /// Why, for people; may be empty.
    #[serde(default)]
    pub reason: String,
    /// Until when; none for as long as it is not taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Veto {
    /// A veto from now on, for so long or until it is taken back.
    pub fn new(reason: impl Into<String>, time: Option<Duration>, now: Timestamp) -> Result<Self, EdgeError> {
        let reason = reason.into();
        if reason.len() > NAME_BYTES_MAX {
            return Err(EdgeError::invalid(format!("the reason is {} bytes, the most is {NAME_BYTES_MAX}", reason.len())));
        }
        let until = time.map(|time| now.checked_add(time)).transpose();
        let until = until.map_err(|error| EdgeError::invalid("the time is too long to be counted").with_source(error))?;
        Ok(Self { reason, until })
    }

    /// Whether it holds at this time.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl fmt::Display for Veto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("held")?;
        if let Some(until) = self.until {
            write!(f, " until {}", until.strftime("%Y-%m-%d %H:%M:%SZ"))?;
        }
        if self.reason.is_empty() { Ok(()) } else { write!(f, ": {}", self.reason) }
    }
}

/// The owner's word and the node's hours.
#[derive(Debug)]
pub(crate) struct Hold {
    document: Document,
    hours: Option<UpdateHours>,
    veto: ArcSwap<Option<Veto>>,
}

impl Hold {
    pub(crate) fn open(documents: &Documents, hours: Option<UpdateHours>) -> Result<Self, EdgeError> {
        let document = documents.document(DocumentName::new(format!("{LOCAL_PREFIX}hold"))?);
        let veto = document.get(VETO)?.map(|value| stored::of_value(&value, || "the veto of this node".to_owned())).transpose()?;
        Ok(Self { document, hours, veto: ArcSwap::from_pointee(veto) })
    }

    /// Sets the owner's word, or takes it back. Blocks until it is on the disk.
    pub(crate) fn set(&self, veto: Option<Veto>) -> Result<(), EdgeError> {
        let value = veto.as_ref().map(stored::to_value).transpose()?;
        self.document.edit(Precondition::None, move |draft| match &value {
            Some(value) => draft.set(VETO, value),
            None => draft.remove(VETO),
        })?;
        self.veto.store(Arc::new(veto));
        Ok(())
    }

    /// Why nothing is taken now; none when it is.
    pub(crate) fn why(&self, now: Timestamp) -> Option<String> {
        if let Some(veto) = self.veto.load().as_ref().as_ref().filter(|veto| veto.holds(now)) {
            return Some(veto.to_string());
        }
        let hours = self.hours.filter(|hours| !hours.include(now.to_zoned(TimeZone::system()).time()))?;
        Some(format!("it takes updates from {hours}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_may_go_over_midnight() {
        let hours = |text: &str| text.parse::<UpdateHours>().expect("valid");
        let at = |hour, minute| Time::constant(hour, minute, 0, 0);
        let night = hours("22:30-04:00");
        assert!(night.include(at(22, 30)) && night.include(at(0, 0)) && night.include(at(3, 59)));
        assert!(!night.include(at(4, 0)) && !night.include(at(12, 0)));
        let early = hours("02:00-04:30");
        assert!(early.include(at(2, 0)) && !early.include(at(4, 30)) && !early.include(at(1, 59)));
        assert_eq!(early.to_string(), "02:00-04:30");
        for text in ["", "02:00", "2-4", "02:00-25:00", "02:00-02:00", "02:00-04:00-06:00"] {
            assert!(text.parse::<UpdateHours>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_veto_ends_when_it_says_so() {
        let now = Timestamp::UNIX_EPOCH;
        let veto = Veto::new("inventory", Some(Duration::from_mins(1)), now).expect("valid");
        assert!(veto.holds(now) && !veto.holds(now + Duration::from_mins(1)));
        assert_eq!(veto.to_string(), "held until 1970-01-01 00:01:00Z: inventory");
        assert!(Veto::new("", None, now).expect("valid").holds(Timestamp::MAX));
        assert!(Veto::new("x".repeat(NAME_BYTES_MAX + 1), None, now).is_err() && Veto::new("", Some(Duration::MAX), now).is_err());
    }
}
