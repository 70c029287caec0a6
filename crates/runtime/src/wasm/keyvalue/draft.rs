//! `wasi:keyvalue@0.2.0-draft`: cursors are numbers, which a bucket remembers, and counters have no sign.

use wasmtime::component::{Linker, Resource};

use super::{Bucket, KeyValue, Page, Refusal};
use crate::wasm::sandbox::Sandbox;

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit/keyvalue-0.2.0-draft.wit",
        world: "imports",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": crate::wasm::keyvalue::Bucket },
        trappable_error_type: { "wasi:keyvalue/store.error" => crate::wasm::keyvalue::Refusal },
    });
}

use bindings::wasi::keyvalue::{atomics, batch, store};

pub(super) fn add_to_linker(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    store::add_to_linker::<_, KeyValue<'static>>(linker, Sandbox::keyvalue)?;
    atomics::add_to_linker::<_, KeyValue<'static>>(linker, Sandbox::keyvalue)?;
    batch::add_to_linker::<_, KeyValue<'static>>(linker, Sandbox::keyvalue)
}

impl store::Host for KeyValue<'_> {
    async fn open(&mut self, identifier: String) -> Result<Resource<Bucket>, Refusal> {
        KeyValue::open(self, &identifier)
    }

    fn convert_error(&mut self, refusal: Refusal) -> wasmtime::Result<store::Error> {
        match refusal {
            Refusal::NoSuchStore => Ok(store::Error::NoSuchStore),
            Refusal::AccessDenied => Ok(store::Error::AccessDenied),
            Refusal::Other(message) => Ok(store::Error::Other(message)),
            Refusal::Trap(error) => Err(error),
        }
    }
}

impl store::HostBucket for KeyValue<'_> {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Option<Vec<u8>>, Refusal> {
        self.place(&bucket)?.get(key).await
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Result<(), Refusal> {
        self.place(&bucket)?.write(vec![(key, Some(value))]).await
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Result<(), Refusal> {
        self.place(&bucket)?.write(vec![(key, None)]).await
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Result<bool, Refusal> {
        self.place(&bucket)?.get(key).await.map(|value| value.is_some())
    }

    async fn list_keys(&mut self, bucket: Resource<Bucket>, cursor: Option<u64>) -> Result<store::KeyResponse, Refusal> {
        let after = cursor.map(|cursor| self.table.get(&bucket)?.after(cursor)).transpose()?;
        let Page { keys, more } = self.place(&bucket)?.keys(after).await?;
        let cursor = match keys.last().filter(|_| more) {
            Some(last) => Some(self.table.get_mut(&bucket)?.give_cursor(last.clone())),
            None => None,
        };
        Ok(store::KeyResponse { keys, cursor })
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.close(bucket)
    }
}

impl atomics::Host for KeyValue<'_> {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> Result<u64, Refusal> {
        let by =
            i64::try_from(delta).map_err(|_| Refusal::Other(format!("the increment {delta} is too large; the most is {}", i64::MAX)))?;
        let sum = self.place(&bucket)?.increment(key, by).await?;
        u64::try_from(sum).map_err(|_| Refusal::Other(format!("the number was incremented and is {sum}, which this interface cannot say")))
    }
}

impl batch::Host for KeyValue<'_> {
    async fn get_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<Vec<Option<(String, Vec<u8>)>>, Refusal> {
        let found = self.place(&bucket)?.get_many(keys).await?;
        Ok(found.into_iter().map(|(key, value)| value.map(|value| (key, value))).collect())
    }

    async fn set_many(&mut self, bucket: Resource<Bucket>, key_values: Vec<(String, Vec<u8>)>) -> Result<(), Refusal> {
        self.place(&bucket)?.write(key_values.into_iter().map(|(key, value)| (key, Some(value))).collect()).await
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<(), Refusal> {
        self.place(&bucket)?.write(keys.into_iter().map(|key| (key, None)).collect()).await
    }
}
