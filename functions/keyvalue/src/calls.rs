//! The lines, written once for both drafts: what they share has the same names.
//!
//! | line | what it does, and tells |
//! |---|---|
//! | `open NAME` | opens a bucket for the lines after it |
//! | `get KEY`, `set KEY VALUE`, `delete KEY`, `exists KEY` | the call |
//! | `fill KEY BYTES` | sets a value of so many bytes |
//! | `keys [CURSOR]` | the keys, then `|` and the cursor |
//! | `increment KEY BY` | the sum |
//! | `get-many KEY…`, `set-many (KEY VALUE)…`, `delete-many KEY…` | the call |
//! | `fill-many COUNT BYTES` | sets `k0000` and so on to values of so many bytes, in one batch |
//! | `get-filled COUNT` | gets them, in one batch; tells how many bytes there were |
//! | `hold NAME` | opens buckets until that fails; how many, and why |
//! | `cas KEY VALUE` | a compare-and-swap; what it saw, then `done` |
//! | `race KEY MEANWHILE VALUE` | the same with a write in between, then once more; what each saw, then `done` |
//! | `hold-cas KEY` | begins compare-and-swaps until that fails; how many, and why |
//! | `add KEY TIMES` | adds 1 so many times by compare-and-swap; `done` |

use crate::percent::{decode, encode};

fn text(word: &str) -> String {
    String::from_utf8_lossy(&decode(word)).into_owned()
}

fn value(value: Option<Vec<u8>>) -> String {
    value.map_or("-".to_owned(), |value| encode(&value))
}

fn filler(bytes: &str) -> Vec<u8> {
    vec![b'7'; bytes.parse().unwrap_or(0)]
}

fn filled(count: &str) -> impl Iterator<Item = String> {
    (0..count.parse().unwrap_or(0)).map(|n: u32| format!("k{n:04}"))
}

/// What one key of a batch gave, in either draft.
trait Got {
    fn value(self) -> Option<Vec<u8>>;
}

impl Got for Option<(String, Vec<u8>)> {
    fn value(self) -> Option<Vec<u8>> {
        self.map(|(_, value)| value)
    }
}

impl Got for (String, Option<Vec<u8>>) {
    fn value(self) -> Option<Vec<u8>> {
        self.1
    }
}

macro_rules! calls {
    ($other:ident) => {
        fn why(error: store::Error) -> String {
            match error {
                store::Error::NoSuchStore => "no-such-store".to_owned(),
                store::Error::AccessDenied => "access-denied".to_owned(),
                store::Error::Other(message) => format!("error: {message}"),
            }
        }

        pub(crate) fn tell(lines: &str) -> String {
            let mut bucket = None;
            let mut call = |line: &str| -> Result<String, String> {
                let words: Vec<&str> = line.split(' ').collect();
                if let ["open", name] = *words {
                    bucket = Some(store::open(&text(name)).map_err(why)?);
                    return Ok("ok".to_owned());
                }
                if let ["hold", name] = *words {
                    let mut held = Vec::new();
                    loop {
                        match store::open(&text(name)) {
                            Ok(bucket) => held.push(bucket),
                            Err(error) => return Ok(format!("{} {}", held.len(), why(error))),
                        }
                    }
                }
                let bucket = bucket.as_ref().ok_or("closed")?;
                let ok = |()| "ok".to_owned();
                match *words {
                    ["get", key] => bucket.get(&text(key)).map(value),
                    ["set", key, value] => bucket.set(&text(key), &decode(value)).map(ok),
                    ["fill", key, bytes] => bucket.set(&text(key), &filler(bytes)).map(ok),
                    ["delete", key] => bucket.delete(&text(key)).map(ok),
                    ["exists", key] => bucket.exists(&text(key)).map(|exists| exists.to_string()),
                    ["increment", key, by] => {
                        let by = by.parse().map_err(|_| "not a number")?;
                        atomics::increment(bucket, &text(key), by).map(|sum| sum.to_string())
                    }
                    ["get-many", ref keys @ ..] => {
                        let keys: Vec<String> = keys.iter().map(|key| text(key)).collect();
                        let got = batch::get_many(bucket, &keys);
                        got.map(|got| got.into_iter().map(|got| value(got.value())).collect::<Vec<_>>().join(" "))
                    }
                    ["set-many", ref pairs @ ..] => {
                        let pairs: Vec<_> = pairs.chunks_exact(2).map(|pair| (text(pair[0]), decode(pair[1]))).collect();
                        batch::set_many(bucket, &pairs).map(ok)
                    }
                    ["delete-many", ref keys @ ..] => {
                        let keys: Vec<String> = keys.iter().map(|key| text(key)).collect();
                        batch::delete_many(bucket, &keys).map(ok)
                    }
                    ["fill-many", count, bytes] => {
                        let pairs: Vec<_> = filled(count).map(|key| (key, filler(bytes))).collect();
                        batch::set_many(bucket, &pairs).map(ok)
                    }
                    ["get-filled", count] => {
                        let got = batch::get_many(bucket, &filled(count).collect::<Vec<_>>());
                        got.map(|got| got.into_iter().filter_map(Got::value).map(|value| value.len()).sum::<usize>().to_string())
                    }
                    _ => return $other(bucket, &words),
                }
                .map_err(why)
            };
            lines.lines().map(|line| call(line).unwrap_or_else(|error| error) + "\n").collect()
        }
    };
}

pub(crate) mod draft {
    use super::*;
    use crate::draft::wasi::keyvalue::{atomics, batch, store};

    calls!(other);

    fn other(bucket: &store::Bucket, words: &[&str]) -> Result<String, String> {
        match *words {
            ["keys", ref cursor @ ..] => {
                let page = bucket.list_keys(cursor.first().and_then(|cursor| cursor.parse().ok())).map_err(why)?;
                let cursor = page.cursor.map_or("-".to_owned(), |cursor| cursor.to_string());
                Ok(format!("{} | {cursor}", page.keys.join(" ")))
            }
            _ => Err("not a line of this draft".to_owned()),
        }
    }
}

pub(crate) mod draft2 {
    use super::*;
    use crate::draft2::wasi::keyvalue::{
        atomics::{self, Cas, CasError},
        batch, store,
    };

    calls!(other);

    fn other(bucket: &store::Bucket, words: &[&str]) -> Result<String, String> {
        match *words {
            ["keys", ref cursor @ ..] => {
                let cursor = cursor.first().map(|cursor| text(cursor));
                let page = bucket.list_keys(cursor.as_deref()).map_err(why)?;
                let cursor = page.cursor.map_or("-".to_owned(), |cursor| encode(cursor.as_bytes()));
                Ok(format!("{} | {cursor}", page.keys.join(" ")))
            }
            ["cas", key, new] => {
                let cas = Cas::new(bucket, &text(key)).map_err(why)?;
                let seen = value(cas.current().map_err(why)?);
                let lost = swap(cas, &decode(new))?;
                Ok(format!("{seen} {}", if lost.is_some() { "lost" } else { "done" }))
            }
            ["race", key, meanwhile, new] => {
                let cas = Cas::new(bucket, &text(key)).map_err(why)?;
                let seen = value(cas.current().map_err(why)?);
                bucket.set(&text(key), &decode(meanwhile)).map_err(why)?;
                let again = swap(cas, &decode(new))?.ok_or("the write in between was lost")?;
                let found = value(again.current().map_err(why)?);
                let lost = swap(again, &decode(new))?;
                Ok(format!("{seen} {found} {}", if lost.is_some() { "lost" } else { "done" }))
            }
            ["hold-cas", key] => {
                let mut held = Vec::new();
                loop {
                    match Cas::new(bucket, &text(key)) {
                        Ok(cas) => held.push(cas),
                        Err(error) => return Ok(format!("{} {}", held.len(), why(error))),
                    }
                }
            }
            ["add", key, times] => {
                for _ in 0..times.parse().unwrap_or(0) {
                    add(Cas::new(bucket, &text(key)).map_err(why)?)?;
                }
                Ok("done".to_owned())
            }
            _ => Err("not a line of this draft".to_owned()),
        }
    }

    fn add(mut cas: Cas) -> Result<(), String> {
        loop {
            let seen = cas.current().map_err(why)?.unwrap_or_else(|| b"0".to_vec());
            let number: u64 = String::from_utf8_lossy(&seen).parse().map_err(|_| "not a number")?;
            match swap(cas, (number + 1).to_string().as_bytes())? {
                None => return Ok(()),
                Some(again) => cas = again,
            }
        }
    }

    /// The handle to try again with, when another write came first.
    fn swap(cas: Cas, value: &[u8]) -> Result<Option<Cas>, String> {
        match atomics::swap(cas, value) {
            Ok(()) => Ok(None),
            Err(CasError::CasFailed(again)) => Ok(Some(again)),
            Err(CasError::StoreError(error)) => Err(why(error)),
        }
    }
}
