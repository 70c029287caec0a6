//! Structs that are read from maps alone. What is derived reads them from a list of their fields as well, and `strategy = ["canary", 2]` is more likely a
//! mistake than meant.

/// Has structs with `#[serde(remote = "Self")]` read from maps alone.
#[macro_export]
macro_rules! map_only {
    ($($name:ident),+) => {$(
        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Maps;

                impl<'de> ::serde::de::Visitor<'de> for Maps {
                    type Value = $name;

                    fn expecting(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        f.write_str("fields with their names")
                    }

                    fn visit_map<A: ::serde::de::MapAccess<'de>>(self, map: A) -> Result<$name, A::Error> {
                        <$name>::deserialize(::serde::de::value::MapAccessDeserializer::new(map))
                    }
                }

                deserializer.deserialize_map(Maps)
            }
        }
    )+};
}

/// Has such structs written as what is derived writes them.
#[macro_export]
macro_rules! written_as_derived {
    ($($name:ident),+) => {$(
        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Self::serialize(self, serializer)
            }
        }
    )+};
}
