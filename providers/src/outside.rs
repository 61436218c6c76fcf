//! What a provider's client may ask of the world. The component implements it over WASI, the Spin plug-in over spin-sdk, the tests
//! over a plain client; the host never does, so that no call can walk around the sandbox.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::message::{Request, Response};

/// The world as a client sees it.
#[async_trait(?Send)]
pub trait Outside {
    /// Sends one request and reads the whole answer within `timeout`. No redirects are followed, nothing is repeated.
    async fn send(&self, request: Request, timeout: Duration) -> Result<Response, SendError>;
    /// Waits.
    async fn sleep(&self, time: Duration);
    /// The wall clock, for timestamps that travel.
    fn now(&self) -> Timestamp;
    /// A clock that never goes back, for deadlines; its zero means nothing.
    fn ticks(&self) -> Duration;
    /// Fills `bytes` with randomness fit for keys.
    fn random(&self, bytes: &mut [u8]);
}

/// Why there is no answer. What counts is whether the provider can have acted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The egress policy refused the address: nothing left this machine.
    #[error("egress refused: {0}")]
    Refused(String),
    /// No connection came about (DNS, TCP, TLS): nothing was executed.
    #[error("not reached: {0}")]
    NotSent(String),
    /// The connection broke or the time ran out after the request may have been read.
    #[error("answer lost: {0}")]
    Lost(String),
    /// The answer came and breaks HTTP, or is larger than allowed. The provider has acted on the request.
    #[error("unreadable answer: {0}")]
    Unreadable(String),
}
