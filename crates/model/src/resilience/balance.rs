//! How a node is chosen among those that could take a call.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::EdgeError;

/// How a node is chosen among those that are equally near.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Of two that are drawn, the one with less to do: latency times the calls that are under way, and more for one that fails.
    #[default]
    PowerOfTwo,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// Any, those more often that have a greater weight; none with the weight 0.
    Weighted,
    /// The one with the fewest calls under way.
    LeastConnections,
}

impl Balance {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::PowerOfTwo, Self::RoundRobin, Self::Random, Self::Weighted, Self::LeastConnections];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PowerOfTwo => "power_of_two",
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::Weighted => "weighted",
            Self::LeastConnections => "least_connections",
        }
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Balance {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        Self::ALL.into_iter().find(|balance| balance.as_str() == text).ok_or_else(|| {
            let shown = shown(text);
            EdgeError::invalid(format!("`{shown}` is no balance: power_of_two, round_robin, random, weighted or least_connections"))
        })
    }
}

/// Whether near nodes come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Locality {
    /// This node, then nodes of the same site, then any.
    #[default]
    Nearest,
    /// All nodes are equally near.
    Any,
}

impl Locality {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Nearest, Self::Any];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Any => "any",
        }
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Locality {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        let found = Self::ALL.into_iter().find(|locality| locality.as_str() == text);
        found.ok_or_else(|| EdgeError::invalid(format!("`{}` is no locality: nearest or any", shown(text))))
    }
}

fn shown(text: &str) -> String {
    text.chars().take(32).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_reads_back_as_text_and_as_json() {
        for balance in Balance::ALL {
            assert_eq!(balance.to_string().parse::<Balance>().expect("its word"), balance);
            assert_eq!(serde_json::to_string(&balance).expect("JSON"), format!("\"{balance}\""));
        }
        for locality in Locality::ALL {
            assert_eq!(locality.to_string().parse::<Locality>().expect("its word"), locality);
            assert_eq!(serde_json::to_string(&locality).expect("JSON"), format!("\"{locality}\""));
        }
        assert!("p2c\n".parse::<Balance>().expect_err("no word").to_string().contains(r"`p2c\n` is no balance"));
        assert!("".parse::<Locality>().is_err());
    }
}
