//! What devices that connect need of the store, asked for together.
//!
//! - Two questions a device: what its proof is checked against, and, once others can find its connection,
//!   what its session begins with.
//! - Whoever asks while the lanes are busy goes with the next question, without a timer: somebody alone
//!   is answered at once, and thousands who come back after a gateway's death share a few questions.
//! - An answer was read after it was asked for: what the store knew before then is in it.

use crate::{
    limits::{LOOKUP_BATCH, LOOKUP_LANES, MAX_UNIDENTIFIED},
    refusal, service,
    store::{self, Arrival, Device, Store, StoreError},
};
use async_trait::async_trait;
use fastchat_protocol::{DeviceId, Refusal};
use std::{collections::HashMap, fmt, sync::Arc};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Where connections ask. Cheap while nobody does.
#[derive(Debug)]
pub struct Arrivals {
    devices: Desk<Device>,
    sessions: Desk<Arrival>,
}

impl Arrivals {
    /// Starts the lanes, which end with `stop`.
    pub fn spawn(store: &Arc<dyn Store>, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        Self { devices: Desk::spawn(store, tasks, stop), sessions: Desk::spawn(store, tasks, stop) }
    }

    /// What a device's proof is checked against; `None` if it is not known.
    pub async fn device(&self, device: DeviceId) -> Result<Option<Device>, Refusal> {
        self.devices.ask(device).await
    }

    /// What its session begins with.
    pub async fn session(&self, device: DeviceId) -> Result<Option<Arrival>, Refusal> {
        self.sessions.ask(device).await
    }
}

/// What is asked for.
#[async_trait]
trait Sought: Clone + Send + Sync + 'static {
    async fn seek(store: &dyn Store, devices: &[DeviceId]) -> store::Result<Vec<(DeviceId, Self)>>;
}

#[async_trait]
impl Sought for Device {
    async fn seek(store: &dyn Store, devices: &[DeviceId]) -> store::Result<Vec<(DeviceId, Self)>> {
        store.known_devices(devices).await
    }
}

#[async_trait]
impl Sought for Arrival {
    async fn seek(store: &dyn Store, devices: &[DeviceId]) -> store::Result<Vec<(DeviceId, Self)>> {
        store.arrivals(devices).await
    }
}

struct Asked<T> {
    device: DeviceId,
    answer: oneshot::Sender<Result<Option<T>, Refusal>>,
}

/// One question and those who wait with it.
struct Desk<T>(mpsc::Sender<Asked<T>>);

impl<T> fmt::Debug for Desk<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Desk").finish_non_exhaustive()
    }
}

impl<T: Sought> Desk<T> {
    fn spawn(store: &Arc<dyn Store>, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let (asking, queue) = mpsc::channel(MAX_UNIDENTIFIED);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..LOOKUP_LANES {
            let lane = lane(Arc::clone(store), Arc::clone(&queue));
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled(lane).await });
        }
        Self(asking)
    }

    /// Cancel safety: a call that is dropped leaves a question of which nobody hears the answer.
    async fn ask(&self, device: DeviceId) -> Result<Option<T>, Refusal> {
        let (answer, answered) = oneshot::channel();
        // Without lanes the gateway ends.
        self.0.send(Asked { device, answer }).await.map_err(|_| refusal::unavailable())?;
        answered.await.map_err(|_| refusal::unavailable())?
    }
}

async fn lane<T: Sought>(store: Arc<dyn Store>, queue: Arc<Mutex<mpsc::Receiver<Asked<T>>>>) {
    loop {
        let mut asked = Vec::new();
        if queue.lock().await.recv_many(&mut asked, LOOKUP_BATCH).await == 0 {
            return;
        }
        match seek(&*store, &asked).await {
            // One device's rows spoil no other's answer.
            Err(StoreError::Corrupt { .. }) if asked.len() > 1 => {
                for one in asked {
                    let found = seek(&*store, std::slice::from_ref(&one)).await;
                    answer(vec![one], found);
                }
            }
            found => answer(asked, found),
        }
    }
}

async fn seek<T: Sought>(store: &dyn Store, asked: &[Asked<T>]) -> store::Result<Vec<(DeviceId, T)>> {
    let devices: Vec<_> = asked.iter().map(|asked| asked.device).collect();
    T::seek(store, &devices).await
}

fn answer<T: Sought>(asked: Vec<Asked<T>>, found: store::Result<Vec<(DeviceId, T)>>) {
    // A device may ask twice at a time: then it has two connections.
    let found = found.map(HashMap::<_, _>::from_iter).map_err(service::store_error);
    for Asked { device, answer } in asked {
        let own = found.as_ref().map(|found| found.get(&device).cloned()).map_err(Clone::clone);
        // Whoever has left needs no answer.
        let _ = answer.send(own);
    }
}
