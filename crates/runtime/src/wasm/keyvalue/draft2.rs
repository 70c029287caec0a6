//! `wasi:keyvalue@0.2.0-draft2`: with compare-and-swap, counters with a sign, and keys as cursors.

use wasmtime::component::{Linker, Resource};

use super::{Bucket, KeyValue, Page, Refusal, Swap, check_key};
use crate::wasm::sandbox::Sandbox;

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit/keyvalue-0.2.0-draft2.wit",
        world: "imports",
        imports: { default: async | trappable },
        with: {
            "wasi:keyvalue/store.bucket": crate::wasm::keyvalue::Bucket,
            "wasi:keyvalue/atomics.cas": crate::wasm::keyvalue::Swap,
        },
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

    async fn list_keys(&mut self, bucket: Resource<Bucket>, cursor: Option<String>) -> Result<store::KeyResponse, Refusal> {
        cursor.as_deref().map_or(Ok(()), check_key)?;
        let Page { keys, more } = self.place(&bucket)?.keys(cursor).await?;
        let cursor = keys.last().filter(|_| more).cloned();
        Ok(store::KeyResponse { keys, cursor })
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.close(bucket)
    }
}

impl atomics::Host for KeyValue<'_> {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: i64) -> Result<i64, Refusal> {
        self.place(&bucket)?.increment(key, delta).await
    }

    async fn swap(&mut self, swap: Resource<Swap>, value: Vec<u8>) -> wasmtime::Result<Result<(), atomics::CasError>> {
        match KeyValue::swap(self, swap, value).await {
            Ok(None) => Ok(Ok(())),
            Ok(Some(again)) => Ok(Err(atomics::CasError::CasFailed(again))),
            Err(refusal) => store::Host::convert_error(self, refusal).map(|error| Err(atomics::CasError::StoreError(error))),
        }
    }
}

impl atomics::HostCas for KeyValue<'_> {
    async fn new(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Resource<Swap>, Refusal> {
        self.begin_swap(&bucket, key).await
    }

    /// What a swap will compare with.
    async fn current(&mut self, swap: Resource<Swap>) -> Result<Option<Vec<u8>>, Refusal> {
        Ok(self.table.get(&swap)?.seen.clone())
    }

    async fn drop(&mut self, swap: Resource<Swap>) -> wasmtime::Result<()> {
        self.release_swap(swap)?;
        Ok(())
    }
}

impl batch::Host for KeyValue<'_> {
    async fn get_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<Vec<(String, Option<Vec<u8>>)>, Refusal> {
        self.place(&bucket)?.get_many(keys).await
    }

    async fn set_many(&mut self, bucket: Resource<Bucket>, key_values: Vec<(String, Vec<u8>)>) -> Result<(), Refusal> {
        self.place(&bucket)?.write(key_values.into_iter().map(|(key, value)| (key, Some(value))).collect()).await
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<(), Refusal> {
        self.place(&bucket)?.write(keys.into_iter().map(|key| (key, None)).collect()).await
    }
}
