//! Which messages of the stream belong together, and whether one follows the one that it was written after.

use std::fmt;

use async_nats::HeaderMap;

/// The header field that has the link of a message.
pub(super) const LINK: &str = "Edgeward-Link";

/// The place of a message in a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// A number that no other bundle has.
    bundle: u64,
    index: u32,
}

/// What is known of the message before the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Link(Link),
    /// It is not one that another may follow: it has no link, or is passed over itself.
    Not,
    /// It is not there any more.
    Gone,
}

/// Up to where the stream was looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    pub(super) position: u64,
    pub(super) link: Known,
}

impl Link {
    /// That of the first message of a new bundle.
    pub(super) fn first() -> Result<Self, getrandom::Error> {
        Ok(Self { bundle: getrandom::u64()?, index: 0 })
    }

    pub(super) fn next(self) -> Self {
        Self { index: self.index + 1, ..self }
    }

    /// None of a message of which no hub says where it belongs.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let (bundle, index) = headers.get(LINK)?.as_str().split_once(' ')?;
        Some(Self { bundle: u64::from_str_radix(bundle, 16).ok()?, index: index.parse().ok()? })
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x} {}", self.bundle, self.index)
    }
}

impl Links {
    /// Notes the next message, and says whether it counts: the first one of a bundle does, and one that comes right after the one before it.
    /// Where that one is gone, as the stream keeps no more, it is believed.
    pub(super) fn take(&mut self, position: u64, link: Option<Link>) -> bool {
        let before = if position == self.position + 1 { self.link } else { Known::Gone };
        let counts = link.is_none_or(|link| link.index == 0 || before == Known::Gone || before.next() == Some(link));
        *self = Self { position, link: link.filter(|_| counts).map_or(Known::Not, Known::Link) };
        counts
    }
}

impl Known {
    fn next(self) -> Option<Link> {
        match self {
            Self::Link(link) => Some(link.next()),
            Self::Not | Self::Gone => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u64 = 7;
    const B: u64 = u64::MAX;

    fn link(bundle: u64, index: u32) -> Link {
        Link { bundle, index }
    }

    #[test]
    fn a_link_is_read_as_it_was_written() {
        let mut headers = HeaderMap::new();
        assert_eq!(Link::of(&headers), None);
        headers.insert(LINK, link(B, 3).to_string().as_str());
        assert_eq!(Link::of(&headers), Some(link(B, 3)));
        headers.insert(LINK, "3");
        assert_eq!(Link::of(&headers), None);
    }

    #[test]
    fn what_follows_a_message_that_is_not_there_does_not_count() {
        let mut links = Links { position: 4, link: Known::Not };
        let taken = [
            (5, Some(link(A, 0)), true),
            (6, Some(link(A, 1)), true),
            // Of this bundle the first two were refused.
            (7, Some(link(B, 2)), false),
            (8, Some(link(B, 3)), false),
            (9, Some(link(A, 2)), false),
            (10, Some(link(B, 0)), true),
            (11, Some(link(B, 1)), true),
            (12, None, true),
            (13, Some(link(B, 2)), false),
            // The one before is gone.
            (20, Some(link(A, 5)), true),
            (21, Some(link(A, 6)), true),
        ];
        for (position, link, counts) in taken {
            assert_eq!(links.take(position, link), counts, "{position}");
        }
        let begins = |known| Links { position: 4, link: known }.take(5, Some(link(A, 1)));
        assert_eq!([begins(Known::Gone), begins(Known::Not), begins(Known::Link(link(A, 0)))], [true, false, true]);
    }
}
