//! A request built again from its flat copy is the request that was sent at first (laws 3 and 28).
#![cfg(feature = "http")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt::Debug,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use allocation_counter::measure;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use http_body::{Body, Frame};
use http_body_util::Full;
use proptest::{collection::vec, option, prelude::*, sample::select, test_runner::TestCaseError};
use tower_tenacity::{Keep, body::ReplayBody, policy::http::FlatCopy};

#[derive(Clone, Debug, PartialEq)]
struct Tenant(String);

fn method() -> impl Strategy<Value = Method> {
    let standard =
        [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH, Method::CONNECT, Method::TRACE];
    prop_oneof![
        select(standard.to_vec()),
        "[A-Z!#$%&'*+.^_`|~-]{1,40}".prop_map(|name| Method::from_bytes(name.as_bytes()).unwrap()),
    ]
}

fn uri() -> impl Strategy<Value = Uri> {
    prop_oneof![
        select(vec!["/", "*", "http://localhost", "https://user@[::1]:8443/a//b?c=d&e=%20", "localhost:443", "/?"])
            .prop_map(Uri::from_static),
        "/[a-zA-Z0-9/._~%-]{0,40}(\\?[a-zA-Z0-9=&/?-]{0,40})?".prop_map(|uri| uri.parse().unwrap()),
        "(http|https|ws|x-own)://[a-z0-9.-]{1,30}(:[1-9][0-9]{0,3})?(/[a-z0-9/]{0,20})?(\\?[a-z=&]{0,20})?"
            .prop_filter_map("no authority", |uri| uri.parse().ok()),
    ]
}

fn name() -> impl Strategy<Value = HeaderName> {
    prop_oneof![
        select(vec![
            header::ACCEPT,
            header::COOKIE,
            header::AUTHORIZATION,
            header::TE,
            header::CONTENT_SECURITY_POLICY
        ]),
        // The last is valid for `from_static` alone.
        select(vec!["x-a", "x-b", "0", "x\"y"]).prop_map(HeaderName::from_static),
        "[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,90}".prop_map(|name| HeaderName::from_bytes(name.as_bytes()).unwrap()),
    ]
}

fn value() -> impl Strategy<Value = HeaderValue> {
    let byte = prop_oneof![Just(b'\t'), 0x20..0x7f_u8, 0x80..=0xff_u8];
    let bytes = prop_oneof![9 => vec(byte, 0..60), 1 => (100..70_000_usize).prop_map(|length| vec![b'x'; length])];
    (bytes, any::<bool>()).prop_map(|(bytes, sensitive)| {
        let mut value = HeaderValue::from_bytes(&bytes).unwrap();
        value.set_sensitive(sensitive);
        value
    })
}

prop_compose! {
    fn request()(
        method in method(),
        uri in uri(),
        version in select(vec![
            Version::HTTP_09, Version::HTTP_10, Version::HTTP_11, Version::HTTP_2, Version::HTTP_3,
        ]),
        headers in vec((name(), value()), 0..=20),
        removed in option::of(any::<prop::sample::Index>()),
        tenant in option::of("[a-z]{0,9}"),
        number in option::of(any::<u64>()),
        body in vec(any::<u8>(), 0..100),
    ) -> Request<Bytes> {
        let mut request = Request::new(Bytes::from(body));
        (*request.method_mut(), *request.uri_mut(), *request.version_mut()) = (method, uri, version);
        for (name, value) in &headers {
            request.headers_mut().append(name, value.clone());
        }
        // One that was there and is gone leaves another order behind.
        if let Some(removed) = removed.filter(|_| !headers.is_empty()) {
            request.headers_mut().remove(&removed.get(&headers).0);
        }
        if let Some(tenant) = tenant {
            request.extensions_mut().insert(Tenant(tenant));
        }
        if let Some(number) = number {
            request.extensions_mut().insert(number);
        }
        request
    }
}

fn same<A, B>(built: &Request<A>, original: &Request<B>) -> Result<(), TestCaseError> {
    prop_assert_eq!(built.method(), original.method());
    prop_assert_eq!(built.uri(), original.uri());
    prop_assert_eq!(built.uri().to_string(), original.uri().to_string());
    prop_assert_eq!(built.version(), original.version());
    prop_assert_eq!(built.headers(), original.headers());
    // The order of names and of the values of a name, and what is sensitive.
    let parts =
        |(name, value): (&HeaderName, &HeaderValue)| (name.clone(), value.as_bytes().to_vec(), value.is_sensitive());
    let headers = |request: &http::HeaderMap| request.iter().map(parts).collect::<Vec<_>>();
    prop_assert_eq!(headers(built.headers()), headers(original.headers()));
    prop_assert_eq!(built.extensions().get::<Tenant>(), original.extensions().get::<Tenant>());
    prop_assert_eq!(built.extensions().get::<u64>(), original.extensions().get::<u64>());
    prop_assert_eq!(built.extensions().len(), original.extensions().len());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_part_of_a_request_comes_again(original in request()) {
        let (first, kept) = FlatCopy.first(original.clone());
        same(&first, &original)?;
        prop_assert_eq!(first.body(), original.body());
        let mut kept = kept.unwrap();
        prop_assert_eq!(&kept.headers(), original.headers());
        prop_assert_eq!((kept.method(), kept.uri(), kept.body()), (original.method(), original.uri(), original.body()));
        // Nothing of the first attempt is needed any more.
        drop(first);
        let (second, kept): (Request<Bytes>, _) = FlatCopy.again(kept, false);
        same(&second, &original)?;
        prop_assert_eq!(second.body(), original.body());
        let (third, kept): (Request<Bytes>, _) = FlatCopy.again(kept.unwrap(), true);
        same(&third, &original)?;
        prop_assert_eq!(third.body(), original.body());
        prop_assert!(kept.is_none(), "the last attempt takes what is kept");
        same(&second, &third)?;
    }

    #[test]
    fn nothing_secret_shows(original in request(), secret in "[a-z]{12}") {
        let mut request = original;
        let mut key = HeaderValue::from_str(&secret).unwrap();
        key.set_sensitive(true);
        request.headers_mut().insert("x-key", key);
        *request.uri_mut() = format!("http://{secret}@localhost/path?key={secret}").parse().unwrap();
        let (first, kept) = FlatCopy.first(request);
        let mut kept = kept.unwrap();
        let shows = |part: &dyn Debug| format!("{part:?}").contains(&secret);
        prop_assert!(!shows(&kept));
        let _ = kept.headers();
        prop_assert!(!shows(&kept), "nor once it is shared");
        let (second, _): (Request<Bytes>, _) = FlatCopy.again(kept, true);
        prop_assert_eq!(format!("{:?}", second.headers()), format!("{:?}", first.headers()));
        prop_assert!(!shows(second.headers()));
    }
}

fn six_headers() -> Request<Full<Bytes>> {
    let fresh = |value: &str| HeaderValue::from_bytes(value.as_bytes()).unwrap();
    let mut key = fresh("AIzaSyA-0123456789abcdefghijklmnopqrstu");
    key.set_sensitive(true);
    Request::put("https://generativelanguage.example.com/v1beta/models/gemini-2.5-flash:generateContent")
        .header("content-type", fresh("application/json"))
        .header("accept", fresh("application/json, text/event-stream"))
        .header("user-agent", fresh("tower-tenacity/0.1"))
        .header("x-goog-api-key", key)
        .header("x-request-id", fresh("7"))
        .header("traceparent", fresh("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
        .body(Full::from(vec![b'x'; 512]))
        .unwrap()
}

#[test]
fn keeping_a_request_takes_one_allocation_and_one_for_a_body_of_its_own() {
    let allocations = |request: Request<Full<Bytes>>| {
        let mut kept = None;
        let counted = measure(|| kept = Some(FlatCopy.first(request)));
        drop(kept);
        counted.count_total
    };
    assert_eq!(allocations(six_headers()), 2);
    assert_eq!(allocations(six_headers().map(|_| Full::from("static"))), 1);
    assert_eq!(allocations(Request::new(Full::from("static"))), 0, "nothing to be copied");
    // A clone, for comparison: each value and each name of one's own is shared one by one.
    let request = six_headers();
    assert!(measure(|| drop(request.clone())).count_total >= 10);
}

#[test]
fn what_is_kept_is_no_larger_than_the_request() {
    fn kept<B: tower_tenacity::body::RepeatBody>() -> usize {
        size_of::<<FlatCopy as Keep<Request<B>>>::Kept>()
    }
    assert!(kept::<Bytes>() <= size_of::<Request<Bytes>>(), "{} B", kept::<Bytes>());
}

/// A body that cannot be cloned.
struct Stream(VecDeque<&'static str>);

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(Bytes::from_static(data.as_bytes())))))
    }
}

fn read<B: Body<Data = Bytes, Error: Debug>>(body: B) -> Vec<u8> {
    let read = pin!(http_body_util::BodyExt::collect(body));
    match read.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(whole) => whole.unwrap().to_bytes().to_vec(),
        Poll::Pending => panic!("everything is there"),
    }
}

#[test]
fn a_body_that_streams_comes_again_where_it_is_kept() {
    let stream = ReplayBody::new(Stream(["a", "b", "c"].into()), 100);
    let (first, kept) = FlatCopy.first(Request::put("/").body(stream).unwrap());
    let mut kept = kept.unwrap();
    assert!(Keep::<Request<ReplayBody<Stream>>>::is_repeatable(&FlatCopy, &kept), "whoever holds it");
    assert_eq!(read(first.into_body()), b"abc");
    assert!(Keep::<Request<ReplayBody<Stream>>>::take_over(&FlatCopy, &mut kept));
    let (second, _): (Request<ReplayBody<Stream>>, _) = FlatCopy.again(kept, true);
    assert_eq!(read(second.into_body()), b"abc");
}

#[test]
fn a_body_longer_than_its_cap_does_not_come_again() {
    let stream = ReplayBody::new(Stream(["a", "b", "c"].into()), 2);
    let (first, kept) = FlatCopy.first(Request::put("/").body(stream).unwrap());
    assert_eq!(read(first.into_body()), b"abc", "it is sent once all the same");
    let mut kept = kept.unwrap();
    assert!(!Keep::<Request<ReplayBody<Stream>>>::is_repeatable(&FlatCopy, &kept));
    assert!(!Keep::<Request<ReplayBody<Stream>>>::take_over(&FlatCopy, &mut kept));
}

#[test]
fn what_is_kept_can_be_amended() {
    let (_, kept) = FlatCopy.first(Request::put("http://a/path").header("x-a", "1").body("body").unwrap());
    let mut kept = kept.unwrap();
    *kept.uri_mut() = Uri::from_static("http://b/path");
    let mut headers = kept.headers();
    headers.append("x-a", HeaderValue::from_static("2"));
    kept.set_headers(&headers);
    kept.extensions_mut().insert(Tenant("t".into()));
    let (second, kept): (Request<&str>, _) = FlatCopy.again(kept, false);
    let (third, _): (Request<&str>, _) = FlatCopy.again(kept.unwrap(), true);
    for request in [second, third] {
        assert_eq!(request.uri(), "http://b/path");
        assert_eq!(request.headers().get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(request.extensions().get(), Some(&Tenant("t".into())));
    }
}
