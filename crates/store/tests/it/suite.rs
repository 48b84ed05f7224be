//! Both stores pass the same functions.

use std::time::Duration;

use pgward_core::cluster::{LeaseId, RawKey};
use pgward_core::time::BootInstant;
use pgward_store::conformance::{self, Bench};
use pgward_store::{EtcdStore, MemoryServer, MemoryStore, boot_now, prefix_of};

use crate::etcd::{Etcd, Opened, open, options};

struct Memory {
    server: MemoryServer,
    store: MemoryStore,
}

impl Bench for Memory {
    type Store = MemoryStore;

    fn store(&self) -> MemoryStore {
        self.store.clone()
    }

    async fn put(&self, suffix: &str, value: &[u8], lease: Option<LeaseId>) {
        self.server.put(suffix, value, lease);
    }

    async fn delete(&self, suffix: &str) {
        self.server.delete(suffix);
    }

    async fn revoke(&self, lease: LeaseId) {
        self.server.revoke(lease);
    }

    async fn outlive(&self, ttl: Duration) {
        self.server.advance(ttl);
    }

    async fn keys(&self) -> Vec<RawKey> {
        self.server.keys()
    }

    fn now(&self) -> BootInstant {
        self.server.now()
    }
}

#[tokio::test]
async fn the_store_in_memory_passes() {
    conformance::all(async |_| {
        let server = MemoryServer::new();
        let store = server.client();
        Memory { server, store }
    })
    .await;
}

struct InEtcd<'a> {
    etcd: &'a Etcd,
    prefix: String,
    opened: Opened,
}

impl Bench for InEtcd<'_> {
    type Store = EtcdStore;

    fn store(&self) -> EtcdStore {
        self.opened.store.clone()
    }

    async fn put(&self, suffix: &str, value: &[u8], lease: Option<LeaseId>) {
        self.etcd.put(&format!("{}{suffix}", self.prefix), value, lease).await.unwrap();
    }

    async fn delete(&self, suffix: &str) {
        self.etcd.ctl(&["del", &format!("{}{suffix}", self.prefix)], None).await.unwrap();
    }

    async fn revoke(&self, lease: LeaseId) {
        self.etcd.ctl(&["lease", "revoke", &format!("{:x}", lease.0)], None).await.unwrap();
    }

    /// The store ends it by itself; the test waits for that.
    async fn outlive(&self, _: Duration) {}

    async fn keys(&self) -> Vec<RawKey> {
        self.etcd.keys(&self.prefix).await.unwrap()
    }

    fn now(&self) -> BootInstant {
        boot_now()
    }
}

#[tokio::test]
async fn the_store_in_etcd_passes() {
    let etcd = Etcd::start(1, &[]).await.unwrap();
    conformance::all(async |name| {
        let opened = open(&options(etcd.urls(), name));
        InEtcd { etcd: &etcd, prefix: prefix_of("service", name), opened }
    })
    .await;
}
