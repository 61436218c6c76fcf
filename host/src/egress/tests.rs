use std::net::{IpAddr, Ipv4Addr};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::upstream::{Step, Upstream, ok, say};
use super::*;
use crate::resolve::Resolution;

/// Answers every question with the same addresses.
#[derive(Debug)]
struct Fixed(Vec<IpAddr>);

impl Resolve for Fixed {
    fn resolve<'a>(&'a self, _: &'a str) -> Resolution<'a> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

fn quick() -> EgressOptions {
    EgressOptions {
        connect_timeout: Duration::from_secs(2),
        first_byte_timeout: Duration::from_millis(400),
        between_bytes_timeout: Duration::from_millis(400),
        total_timeout: Duration::from_secs(4),
        ..EgressOptions::default()
    }
}

fn egress(base_url: &str, addresses: &[&str], options: EgressOptions) -> Egress {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Egress::new(EgressPolicy::new(base_url, &[], true).unwrap(), options, Arc::new(Fixed(addresses))).unwrap()
}

/// The way to a test's server.
fn to(upstream: &Upstream) -> Egress {
    egress(&format!("http://127.0.0.1:{}/api", upstream.port), &[], quick())
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

async fn fetch(upstream: &Upstream) -> Result<Response<Bytes>, EgressError> {
    to(upstream).send(get(&format!("http://127.0.0.1:{}/api", upstream.port)), None).await
}

#[tokio::test]
async fn a_request_arrives_as_it_was_written() {
    let upstream = Upstream::start(|_| ok("{}")).await;
    let request = Request::post(format!("http://127.0.0.1:{}/api/%2e/x?b=%2F&a=+&", upstream.port))
        .header("x-signature", "abc")
        .header("host", "evil.example")
        .header("content-length", "3")
        .body(Full::from("y".repeat(100_000)))
        .unwrap();
    let response = to(&upstream).send(request, None).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.body()[..]), (200, &b"{}"[..]));
    let request = upstream.requests().remove(0);
    assert!(request.starts_with("POST /api/%2e/x?b=%2F&a=+& HTTP/1.1\r\n"), "{}", &request[..200]);
    let head = request.split("\r\n\r\n").next().unwrap();
    let fields = |name: &str| head.lines().filter_map(|line| line.strip_prefix(name)).collect::<Vec<_>>();
    assert_eq!(fields("host: "), [format!("127.0.0.1:{}", upstream.port)]);
    assert_eq!(fields("content-length: "), ["100000"]);
    assert_eq!(fields("x-signature: "), ["abc"]);
    assert!(request.ends_with(&"y".repeat(100_000)));
}

#[tokio::test]
async fn what_is_not_allowed_leaves_no_trace() {
    let upstream = Upstream::start(|_| ok("{}")).await;
    let (egress, port) = (to(&upstream), upstream.port);
    for uri in [
        format!("http://localhost:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://user@127.0.0.1:{port}/"),
        format!("http://evil.example@127.0.0.1:{port}/"),
        format!("http://127.0.0.1@evil.example:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{}/", port - 1),
        "http://127.0.0.1/".to_owned(),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "/api".to_owned(),
    ] {
        let error = egress.send(get(&uri), None).await.unwrap_err();
        assert!(matches!(error, EgressError::HostDenied(_)) && !error.sent(), "{uri}: {error}");
    }
    let connect = Request::connect(format!("http://127.0.0.1:{port}/")).body(Full::<Bytes>::default()).unwrap();
    assert!(matches!(egress.send(connect, None).await, Err(EgressError::MethodDenied(_))));
    let large = Request::post(format!("http://127.0.0.1:{port}/")).body(Full::from(vec![0; BODY_MAX + 1])).unwrap();
    assert!(matches!(egress.send(large, None).await, Err(EgressError::RequestBody)));
    let long = Request::get(format!("http://127.0.0.1:{port}/")).header("x", "y".repeat(HEAD_MAX)).body(Full::default()).unwrap();
    assert!(matches!(egress.send::<Full<Bytes>>(long, None).await, Err(EgressError::RequestHead)));
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn an_error_tells_no_password() {
    let upstream = Upstream::start(|_| ok("{}")).await;
    let error = to(&upstream).send(get("http://user:hunter2@evil.example/"), None).await.unwrap_err();
    assert_eq!(error.to_string(), "`evil.example` is not among the hosts of this profile");
}

#[tokio::test]
async fn a_name_leads_nowhere_else() {
    let upstream = Upstream::start(|_| ok("{}")).await;
    let port = upstream.port;
    for (private, addresses, denied) in [
        (false, &["127.0.0.1"][..], true),
        (false, &["8.8.8.8", "10.0.0.1"], true),
        (false, &["169.254.169.254"], true),
        (false, &["::ffff:127.0.0.1"], true),
        (false, &["64:ff9b::7f00:1"], true),
        (false, &["::1"], true),
        (false, &[], false),
        (true, &["169.254.169.254"], true),
        (true, &["127.0.0.1", "::ffff:127.0.0.1"], true),
        (true, &["0.0.0.0"], true),
    ] {
        let base = format!("https://api.example.com:{port}/");
        let resolver = Fixed(addresses.iter().map(|text| text.parse().unwrap()).collect());
        let egress = Egress::new(EgressPolicy::new(&base, &[], private).unwrap(), quick(), Arc::new(resolver)).unwrap();
        let error = egress.send(get(&base), None).await.unwrap_err();
        assert_eq!(matches!(error, EgressError::AddressDenied(_)), denied, "{addresses:?}: {error}");
        assert!(!error.sent());
    }
    assert_eq!(upstream.connections(), 0);
    // In development a name may lead here, where plain http is for private addresses alone.
    let base = format!("http://api.example.com:{port}/");
    assert!(egress(&base, &["127.0.0.1"], quick()).send(get(&base), None).await.is_ok());
    let public = egress(&base, &["8.8.8.8"], quick()).send(get(&base), None).await;
    assert!(matches!(public, Err(EgressError::AddressDenied(_))));
    assert!(upstream.requests()[0].contains(&format!("host: api.example.com:{port}")));
}

#[tokio::test]
async fn silence_and_slowness_end_in_time() {
    let wait = Step::Wait(Duration::from_mins(1));
    let head = Step::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nbegin".to_vec());
    let drip: Vec<Step> = [head.clone()]
        .into_iter()
        .chain((0..90).flat_map(|_| [Step::Wait(Duration::from_millis(100)), Step::Say(b".".to_vec())]))
        .collect();
    for (script, expected, limit) in
        [(vec![wait.clone()], "FirstByteTimeout", 3), (vec![head, wait], "Stalled", 2), (drip, "TotalTimeout", 6)]
    {
        let upstream = Upstream::start(move |_| script.clone()).await;
        let started = std::time::Instant::now();
        let error = fetch(&upstream).await.unwrap_err();
        assert_eq!(format!("{error:?}"), expected);
        assert!(error.sent());
        assert!(started.elapsed() < Duration::from_secs(limit), "{expected} after {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn no_answer_is_larger_than_allowed() {
    let sized = |length: usize| say(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length)));
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let endless =
        vec![Step::Say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()), Step::Repeat(chunk.into_bytes())];
    let bomb = vec![Step::Say(b"HTTP/1.1 200 OK\r\n".to_vec()), Step::Repeat(b"x-bomb: 0123456789\r\n".to_vec())];
    let line = say(format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n", "y".repeat(HEAD_MAX)));
    let many = say(format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "a: b\r\n".repeat(FIELDS_MAX)));
    for (script, expected) in [
        (sized(BODY_MAX), None),
        (sized(BODY_MAX + 1), Some("ResponseBody")),
        (endless, Some("ResponseBody")),
        (bomb, Some("ResponseHead")),
        (line, Some("ResponseHead")),
        (many, Some("ResponseHead")),
        (say("HTTP/1.1 two hundred\r\n\r\n"), Some("ResponseHead")),
        (say("SMTP hello\r\n\r\n"), Some("ResponseHead")),
    ] {
        let upstream = Upstream::start(move |_| script.clone()).await;
        let result = fetch(&upstream).await;
        match (&result, expected) {
            (Ok(response), None) => assert_eq!(response.body().len(), BODY_MAX),
            (Err(error), Some(expected)) => {
                assert!(format!("{error:?}").starts_with(expected), "{error:?} instead of {expected}");
                assert!(error.sent());
            }
            _ => panic!("{:?} instead of {expected:?}", result.map(|response| response.status())),
        }
    }
}

#[tokio::test]
async fn a_broken_connection_is_a_lost_answer() {
    let cut = vec![Step::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nbegin".to_vec()), Step::Close];
    for (script, expected) in [(vec![Step::Close], "Broken"), (cut, "ResponseBroken")] {
        let upstream = Upstream::start(move |_| script.clone()).await;
        let error = fetch(&upstream).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(expected) && error.sent(), "{error:?}");
        assert_eq!(upstream.requests().len(), 1, "nothing is sent twice");
    }
}

#[tokio::test]
async fn a_closed_port_means_not_sent() {
    let closed = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
    let base = format!("http://127.0.0.1:{closed}/");
    let error = egress(&base, &[], quick()).send(get(&base), None).await.unwrap_err();
    assert!(matches!(error, EgressError::Connect(io::ErrorKind::ConnectionRefused)) && !error.sent(), "{error:?}");
}

#[tokio::test]
async fn redirects_are_answers() {
    let inside = Upstream::start(|_| ok("secret")).await;
    let location = format!("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{}/\r\ncontent-length: 0\r\n\r\n", inside.port);
    let upstream = Upstream::start(move |_| say(location.clone())).await;
    assert_eq!(fetch(&upstream).await.unwrap().status().as_u16(), 302);
    assert_eq!((upstream.requests().len(), inside.connections()), (1, 0));
}

#[tokio::test]
async fn connections_are_kept_within_a_profile_only() {
    let upstream = Upstream::start(|_| ok("{}")).await;
    let egress = to(&upstream);
    for _ in 0..3 {
        egress.send(get(&format!("http://127.0.0.1:{}/", upstream.port)), None).await.unwrap();
    }
    assert_eq!(upstream.connections(), 1);
    fetch(&upstream).await.unwrap();
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn tls_proves_the_name() {
    let made = rcgen::generate_simple_self_signed(["api.example.com".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let upstream = Upstream::listen(|_| ok("{}"), Some(TlsAcceptor::from(Arc::new(config)))).await;
    let trusting = EgressOptions { extra_roots: vec![made.cert.der().clone()], ..quick() };
    for (name, options, good) in
        [("api.example.com", trusting.clone(), true), ("api.example.com", quick(), false), ("other.example.com", trusting, false)]
    {
        let base = format!("https://{name}:{}/", upstream.port);
        let result = egress(&base, &["127.0.0.1"], options).send(get(&base), None).await;
        match result {
            Ok(response) => assert!(good && response.status().is_success(), "{name}"),
            Err(error) => assert!(!good && matches!(error, EgressError::Certificate(_)) && !error.sent(), "{name}: {error:?}"),
        }
    }
    assert_eq!(upstream.requests().len(), 1);
    // A server that speaks no TLS.
    let plain = Upstream::start(|_| ok("{}")).await;
    let base = format!("https://api.example.com:{}/", plain.port);
    let error = egress(&base, &["127.0.0.1"], quick()).send(get(&base), None).await.unwrap_err();
    assert!(matches!(error, EgressError::Tls(_) | EgressError::ConnectTimeout) && !error.sent(), "{error:?}");
}
