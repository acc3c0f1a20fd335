//! Requests as clients send them, byte for byte, and what comes back.

#![allow(clippy::unwrap_used, reason = "tests, and what they are made of")]

mod fake;

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use serde_json::{Value, json};

/// Sends one request and returns status, head and body.
fn raw(socket: &Path, request: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = UnixStream::connect(socket).unwrap();
    // The server may answer and close before all of a large body is sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_ascii_lowercase();
    let body = answer[end + 4..].to_vec();
    let body = if head.contains("transfer-encoding: chunked") { unchunked(&body) } else { body };
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head, body)
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let line = body.windows(2).position(|w| w == b"\r\n").unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&body[..line]).unwrap(), 16).unwrap();
        if length == 0 {
            return out;
        }
        out.extend_from_slice(&body[line + 2..line + 2 + length]);
        body = &body[line + 4 + length..];
    }
}

fn send(socket: &Path, method: &str, path: &str, kind: &str, body: &str) -> (u16, Value) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (status, head, body) = raw(socket, request.as_bytes());
    assert!(head.contains("content-type: application/json"), "{head}");
    (status, serde_json::from_slice(&body).unwrap())
}

fn call(socket: &Path, method: &str, path: &str, body: Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    send(socket, method, path, "application/json", &body)
}

fn get(socket: &Path, path: &str) -> (u16, Value) {
    call(socket, "GET", path, Value::Null)
}

#[test]
fn everything_that_is_described_answers_as_described() {
    let served = fake::serve();
    let document: Value = serde_json::from_str(&fabnic_api::openapi()).unwrap();
    let mut seen = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        if methods.get("get").is_none()
            || path == "/metrics"
            || ["/v1/capture", "/v1/events", "/v1/ports/{name}/state"].contains(&path.as_str())
        {
            continue;
        }
        let query = if path == "/v1/why" { "?port=vm1" } else { "" };
        let name = if path.starts_with("/v1/rules") { "web" } else { "vm1" };
        let (status, body) = get(&served.socket, &(path.replace("{name}", name) + query));
        assert_eq!(status, 200, "{path}");
        let schema = &methods["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        assert_described(&document, schema, &body, path);
        seen += 1;
    }
    assert_eq!(seen, 25);
    assert_eq!(get(&served.socket, "/v1/openapi.json"), (200, document));
}

/// A value has the type of its schema, its required keys, and none that the schema does not know.
fn assert_described(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        return assert_described(document, &document["components"]["schemas"][name], value, at);
    }
    if let Some(parts) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
        let part = parts.iter().find(|p| p["type"] != "null").unwrap();
        if !value.is_null() && parts.len() <= 2 {
            assert_described(document, part, value, at);
        }
        return;
    }
    if let Some(parts) = schema["allOf"].as_array() {
        // Flattened tables: each part knows some of the keys.
        let known: Vec<&str> = parts
            .iter()
            .map(|p| match p["$ref"].as_str() {
                Some(name) => &document["components"]["schemas"][name.rsplit('/').next().unwrap()],
                None => p,
            })
            .flat_map(|p| p["properties"].as_object().unwrap().keys().map(String::as_str))
            .collect();
        for key in value.as_object().unwrap().keys() {
            assert!(known.contains(&key.as_str()), "{at}.{key} is not described");
        }
        return;
    }
    match value {
        Value::Array(list) => {
            for element in list {
                assert_described(document, &schema["items"], element, &format!("{at}[]"));
            }
        }
        Value::Object(keys) => {
            for required in schema["required"].as_array().into_iter().flatten() {
                assert!(keys.contains_key(required.as_str().unwrap()), "{at}.{required} is missing");
            }
            if let Some(properties) = schema["properties"].as_object() {
                for (key, value) in keys {
                    let schema = properties.get(key).unwrap_or_else(|| panic!("{at}.{key} is not described"));
                    assert_described(document, schema, value, &format!("{at}.{key}"));
                }
            }
        }
        Value::String(_) => {
            let types = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
            // A schema without a type is one of anything.
            assert!(types == [Value::Null] || types.contains(&json!("string")), "{at}");
        }
        _ => {}
    }
}

#[test]
fn ports_are_added_changed_and_removed() {
    let served = fake::serve();
    let s = &served.socket;
    let port = json!({ "name": "vm3", "nic": "virtio-net", "vhost_user": { "socket": "/run/3.sock" } });

    let (status, dry) = call(s, "POST", "/v1/ports?dry_run=true", port.clone());
    assert_eq!((status, &dry["dry_run"]), (200, &json!(true)));
    assert_eq!(get(s, "/v1/ports/vm3").0, 404);

    let (status, applied) = call(s, "POST", "/v1/ports", port.clone());
    assert_eq!((status, &applied["changes"]), (201, &dry["changes"]));
    assert_eq!(applied["changes"][0]["op"], "port-add");
    let (status, again) = call(s, "POST", "/v1/ports", port);
    assert_eq!((status, &again["error"]), (409, &json!("there is a port `vm3` already")));

    let patch =
        json!({ "vlan": { "trunk": [10, "20-29"] }, "vhost_user": { "role": "client" }, "mtu": 9000 });
    let (status, changed) = call(s, "PATCH", "/v1/ports/vm3", patch);
    assert_eq!((status, &changed["changes"][0]["effect"]), (200, &json!("recreate")));
    let (_, now) = get(s, "/v1/ports/vm3");
    assert_eq!(now["peer"]["role"], "client");
    assert_eq!(now["peer"]["socket"], "/run/3.sock");
    assert_eq!(now["vlan"], json!({ "trunk": [10, "20-29"] }));
    let (_, back) = call(s, "PATCH", "/v1/ports/vm3", json!({ "mtu": null, "vlan": null }));
    assert_eq!(back["changes"][0]["port"]["mtu"], 1500);
    assert_eq!(back["changes"][0]["effect"], "live");

    assert_eq!(call(s, "DELETE", "/v1/ports/vm3", Value::Null).0, 200);
    assert_eq!(get(s, "/v1/ports/vm3").0, 404);
    // A mirror speaks of the port: it has to go first. The static entry that points to the port, and its static membership
    // of a group, go with it.
    let (status, error) = call(s, "DELETE", "/v1/ports/up0", Value::Null);
    assert_eq!((status, &error["where"]), (422, &json!("mirror[tap].to")));
    assert_eq!(call(s, "DELETE", "/v1/rules/web", Value::Null).0, 200);
    assert_eq!(call(s, "DELETE", "/v1/mirrors/tap", Value::Null).0, 200);
    let (_, gone) = call(s, "DELETE", "/v1/ports/up0", Value::Null);
    assert_eq!(gone["changes"].as_array().unwrap().len(), 3);
}

#[test]
fn a_configuration_is_applied_as_a_whole_or_not_at_all() {
    let served = fake::serve();
    let s = &served.socket;
    let (_, before) = get(s, "/v1/config");
    assert_eq!(
        call(s, "PUT", "/v1/config", before.clone()),
        (200, json!({ "dry_run": false, "changes": [] }))
    );

    let mut broken = before.clone();
    broken["port"][0]["mtu"] = json!(9000);
    broken["port"][2]["device"] = json!("busy0");
    let (status, error) = call(s, "PUT", "/v1/config", broken);
    assert_eq!((status, &error["where"]), (409, &json!("port[up0].device")));
    assert_eq!(get(s, "/v1/config").1, before);

    let toml = fake::START.replace("access = 10", "access = 11").replace("[[fdb]]", "[[port]]");
    let (status, error) = send(s, "PUT", "/v1/config", "application/toml", &toml);
    assert_eq!(status, 422);
    assert_eq!((&error["line"], &error["where"]), (&json!(32), &json!("port[3].port")));
    assert_eq!(get(s, "/v1/config").1, before);

    let toml = fake::START.replace("access = 10", "access = 11");
    let (status, applied) = send(s, "PUT", "/v1/config", "application/toml", &toml);
    assert_eq!(status, 200);
    assert_eq!(applied["changes"].as_array().unwrap().len(), 2);
    assert_eq!(get(s, "/v1/vlans?vlan=11").1.as_array().unwrap().len(), 2);
}

#[test]
fn fdb_entries_are_found_added_and_removed() {
    let served = fake::serve();
    let s = &served.socket;
    assert_eq!(get(s, "/v1/fdb").1["total"], 4);
    assert_eq!(get(s, "/v1/fdb?vlan=10&kind=learned").1["total"], 2);
    let (_, page) = get(s, "/v1/fdb?limit=1");
    assert_eq!((&page["total"], page["entries"].as_array().unwrap().len()), (&json!(4), 1));

    let entry = json!({ "mac": "52:54:00:00:00:77", "vlan": 10, "port": "vm1" });
    assert_eq!(call(s, "POST", "/v1/fdb", entry.clone()).0, 201);
    assert_eq!(call(s, "POST", "/v1/fdb", entry).0, 409);
    let elsewhere = json!({ "mac": "52:54:00:00:00:78", "vlan": 30, "port": "vm1" });
    let (status, error) = call(s, "POST", "/v1/fdb", elsewhere);
    assert_eq!((status, &error["error"]), (422, &json!("port `vm1` is not in VLAN 30")));

    assert_eq!(call(s, "DELETE", "/v1/fdb", Value::Null).0, 400);
    assert_eq!(call(s, "DELETE", "/v1/fdb?mac=52:54:00:00:00:aa", Value::Null).0, 404);
    let (_, gone) = call(s, "DELETE", "/v1/fdb?port=vm1", Value::Null);
    assert_eq!(gone, json!({ "removed": 1, "forgotten": 1 }));
    let (_, gone) = call(s, "DELETE", "/v1/fdb?kind=learned", Value::Null);
    assert_eq!(gone, json!({ "removed": 0, "forgotten": 2 }));
    assert_eq!(get(s, "/v1/fdb").1["total"], 1);
}

#[test]
fn counters_add_up_in_stats_and_metrics() {
    let served = fake::serve();
    let s = &served.socket;
    let (_, stats) = get(s, "/v1/stats?queues=true");
    let stats: fabnic_api::Stats = serde_json::from_value(stats).unwrap();
    assert_eq!(stats.totals.in_flight(), 0);
    assert_eq!(stats.ports[0].queues.len(), 2);
    let (_, one) = get(s, "/v1/stats?port=vm2");
    assert_eq!((one["ports"].as_array().unwrap().len(), &one["ports"][0]["queues"]), (1, &Value::Null));
    assert_eq!(get(s, "/v1/stats?port=none").0, 404);
    assert_eq!(get(s, "/v1/workers").1[0]["cycles_per_packet"], 41.5);

    let (status, head, body) = raw(s, b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(status, 200);
    assert!(head.contains("application/openmetrics-text"));
    let text = String::from_utf8(body).unwrap();
    let value = |sample: &str| -> u64 {
        let line =
            text.lines().find(|l| l.starts_with(sample)).unwrap_or_else(|| panic!("{sample} in\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let totals = &stats.totals;
    assert_eq!(
        value("fabnic_switch_received_frames_total") + value("fabnic_switch_replicated_frames_total"),
        totals.delivered + totals.dropped
    );
    for (reason, frames) in &totals.drops {
        assert_eq!(value(&format!("fabnic_switch_drops_total{{reason=\"{reason}\"}}")), *frames);
    }
    // Each counter of each port is there, and so are queues that were used; others are not.
    for port in &stats.ports {
        for (name, counter) in serde_json::to_value(&port.counters).unwrap().as_object().unwrap() {
            if let Some(counter) = counter.as_u64() {
                assert_eq!(value(&format!("fabnic_port_{name}_total{{port=\"{}\"}}", port.name)), counter);
            }
        }
    }
    assert!(text.contains("fabnic_queue_rx_frames_total{port=\"vm1\",queue=\"0\"} 1000"));
    assert!(!text.contains("queue=\"1\""));
    assert!(text.ends_with("# EOF\n"));
    insta::assert_snapshot!(text);
}

#[test]
fn errors_are_json_with_place_and_expectation() {
    let served = fake::serve();
    let s = &served.socket;
    let cases = [
        ("GET", "/v1/nothing", Value::Null),
        ("GET", "/v1/ports/none", Value::Null),
        ("GET", "/v1/ports/%ff", Value::Null),
        ("GET", "/v1/ports/trap", Value::Null),
        ("POST", "/v1/health", Value::Null),
        ("GET", "/v1/fdb?vlan=5000", Value::Null),
        ("GET", "/v1/fdb?colour=red", Value::Null),
        ("GET", "/v1/fdb?mac=52:54", Value::Null),
        ("GET", "/v1/capture", Value::Null),
        ("GET", "/v1/capture?port=none", Value::Null),
        ("GET", "/v1/capture?port=vm1&snaplen=0", Value::Null),
        ("GET", "/v1/capture?port=vm1&direction=up", Value::Null),
        ("PUT", "/v1/config?dry_run=perhaps", json!({})),
        ("POST", "/v1/ports", Value::Null),
        ("POST", "/v1/ports", json!({ "name": "x", "vlna": { "access": 1 } })),
        ("POST", "/v1/ports", json!({ "name": "x", "nic": "virtio-net", "mtu": "big" })),
        ("POST", "/v1/ports", json!({ "name": "x", "uplink": "xdp", "device": "eth1" })),
        ("POST", "/v1/fdb", json!({ "mac": "52:54:00:00:00:01", "vlan": 4095, "port": "vm1" })),
        ("PATCH", "/v1/ports/vm1", json!({ "name": "vm9" })),
        ("PATCH", "/v1/ports/vm1", json!([1])),
        ("PATCH", "/v1/ports/vm1", json!({ "queues": 0, "mtu": 1 })),
        ("PUT", "/v1/config", json!({ "port": [{ "name": "a", "mtu": true }] })),
        ("PUT", "/v1/config", json!({ "daemon": { "workers": [9] } })),
    ];
    let mut text = String::new();
    for (method, path, body) in cases {
        let shown = if body.is_null() { String::new() } else { format!(" {body}") };
        let (status, error) = call(s, method, path, body);
        assert!(error["error"].is_string() && error["where"].is_string() && error["expected"].is_string());
        let body: fabnic_api::ErrorBody = serde_json::from_value(error).unwrap();
        text.push_str(&format!(
            "{method} {path}{shown}\n  {status} {}\n",
            body.to_string().replace('\n', "\n      ")
        ));
    }
    insta::assert_snapshot!(text);
    // The request that made the backend panic cost only itself.
    assert_eq!(get(s, "/v1/health").0, 200);
}

#[test]
fn large_bodies_are_refused() {
    let served = fake::serve();
    let body = format!("{{\"name\": \"{}\"}}", "x".repeat(100_000));
    let (status, error) = send(&served.socket, "POST", "/v1/ports", "application/json", &body);
    assert_eq!((status, &error["where"]), (413, &json!("body")));
    // A configuration may be larger than that, and says what is wrong with it.
    let (status, error) =
        send(&served.socket, "PUT", "/v1/config", "application/toml", &format!("#{body}\nx = 1"));
    assert_eq!((status, &error["line"]), (422, &json!(2)));
}

#[test]
fn a_capture_streams_until_its_count() {
    let served = fake::serve();
    let request = b"GET /v1/capture?port=vm1&count=100 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let (status, head, body) = raw(&served.socket, request);
    assert_eq!(status, 200);
    assert!(head.contains("application/x-pcapng"));
    assert_eq!(body, [b"HEAD".as_slice(), &b"BLOCK".repeat(100)].concat());
}

#[test]
fn a_ports_state_goes_out_and_comes_in_as_bytes() {
    let served = fake::serve();
    let get = b"GET /v1/ports/vm1/state HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let (status, head, body) = raw(&served.socket, get);
    assert_eq!((status, &body[..]), (200, &b"the state of vm1"[..]));
    assert!(head.contains("content-type: application/octet-stream"), "{head}");
    let put = |port: &str, body: &str| {
        send(&served.socket, "PUT", &format!("/v1/ports/{port}/state"), "application/octet-stream", body)
    };
    let (status, restored) = put("vm1", "the state of vm1");
    assert_eq!((status, &restored["restored"]["fdb"]), (200, &json!(3)));
    let (status, refused) = put("vm1", "anything");
    assert_eq!((status, &refused["where"]), (422, &json!("body")));
    assert_eq!(put("vm9", "the state of vm9").0, 404);
    // A tenant cannot put connections into the table.
    let as_tenant = |method: &str, path: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
            fake::TOKEN
        );
        raw(&served.socket, request.as_bytes()).0
    };
    for (method, path) in [
        ("GET", "/v1/state"),
        ("POST", "/v1/state/save"),
        ("GET", "/v1/ports/vm2/state"),
        ("PUT", "/v1/ports/vm2/state"),
    ] {
        assert_eq!(as_tenant(method, path), 403, "{method} {path}");
    }
}

#[test]
fn a_capture_ends_when_its_client_goes() {
    let served = fake::serve();
    let mut stream = UnixStream::connect(&served.socket).unwrap();
    stream.write_all(b"GET /v1/capture?port=vm1 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    while !seen.windows(4).any(|w| w == b"HEAD") {
        let mut buffer = [0; 512];
        let n = stream.read(&mut buffer).unwrap();
        seen.extend_from_slice(&buffer[..n]);
    }
    assert!(!served.fake.capture_is_closed());
    drop(stream);
    // The test runner's own limit is the clock.
    while !served.fake.capture_is_closed() {
        std::thread::yield_now();
    }
}

#[test]
fn a_capture_ends_when_the_daemon_does() {
    let mut served = fake::serve();
    let mut stream = UnixStream::connect(&served.socket).unwrap();
    stream.write_all(b"GET /v1/capture?port=vm1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut first = [0; 1];
    stream.read_exact(&mut first).unwrap();
    served.stop();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "the stream ends as a whole one");
}

#[test]
fn changes_of_two_clients_both_stay() {
    let served = fake::serve();
    let socket = &served.socket;
    std::thread::scope(|scope| {
        for client in 0..4 {
            scope.spawn(move || {
                for i in 0..10 {
                    let name = format!("c{client}-{i}");
                    let port = json!({ "name": name, "uplink": "loopback" });
                    assert_eq!(call(socket, "POST", "/v1/ports", port).0, 201);
                }
            });
        }
    });
    assert_eq!(get(socket, "/v1/ports").1.as_array().unwrap().len(), 43);
}

/// A request with a token, on a socket.
fn with_token(socket: &Path, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (status, _, body) = raw(socket, request.as_bytes());
    (status, serde_json::from_slice(&body).unwrap())
}

#[test]
fn a_tenant_sees_and_changes_its_own_only() {
    let served = fake::serve();
    let own_socket = served.socket.with_file_name("blue.sock");
    let rule = |name: &str, port: &str| json!({ "name": name, "port": port, "action": ["drop"] });
    for socket in [&served.socket, &own_socket] {
        let blue =
            |method: &str, path: &str, body: Value| with_token(socket, method, path, fake::TOKEN, &body);
        let names = |path: &str, key: &str| -> Vec<String> {
            let (status, list) = blue("GET", path, Value::Null);
            assert_eq!(status, 200, "{list}");
            list.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names("/v1/ports", "name"), ["vm2"]);
        assert_eq!(names("/v1/rules", "id"), ["blue/no-telnet"]);
        assert!(names("/v1/mirrors", "id").is_empty());
        assert!(names("/v1/groups", "id").is_empty());
        assert_eq!(names("/v1/tenants", "name"), ["blue"]);
        let (_, stats) = blue("GET", "/v1/stats", Value::Null);
        assert_eq!(stats["ports"].as_array().unwrap().len(), 1);
        assert_eq!(stats["totals"]["received"], 0);
        let (_, config) = blue("GET", "/v1/config", Value::Null);
        assert_eq!((config["port"].as_array().unwrap().len(), config.get("tenant")), (1, None));
        assert_eq!(blue("GET", "/v1/ports/vm1", Value::Null).0, 404);
        assert_eq!(blue("GET", "/v1/fdb?port=vm2", Value::Null).0, 200);
        assert_eq!(blue("GET", "/v1/fdb?port=vm1", Value::Null).0, 404);
        assert_eq!(blue("GET", "/v1/fdb", Value::Null).0, 400);
        assert_eq!(blue("GET", "/v1/fdb/stats", Value::Null).1.get("table"), None);
        assert_eq!(blue("GET", "/v1/why?port=vm1", Value::Null).0, 404);
        for (method, path) in [
            ("GET", "/v1/workers"),
            ("GET", "/metrics"),
            ("GET", "/v1/multicast"),
            ("PUT", "/v1/config"),
            ("DELETE", "/v1/fdb?vlan=10"),
        ] {
            assert_eq!(blue(method, path, Value::Null).0, 403, "{method} {path}");
        }

        // Its own rule, with its own ports, within its quota.
        let (status, applied) = blue("POST", "/v1/rules", rule("mine", "vm2"));
        assert_eq!((status, &applied["changes"][0]["rule"]["tenant"]), (201, &json!("blue")));
        let (status, error) = blue("POST", "/v1/rules", rule("more", "vm2"));
        assert_eq!((status, &error["where"]), (422, &json!("tenant[blue].quota.rules")));
        assert_eq!(blue("DELETE", "/v1/rules/mine", Value::Null).0, 200);
        let (status, error) = blue("POST", "/v1/rules", rule("theirs", "vm1"));
        assert_eq!((status, &error["where"]), (422, &json!("rule[theirs].port")));
        // Infrastructure's are not there for it, whatever it calls them.
        assert_eq!(blue("DELETE", "/v1/rules/web", Value::Null).0, 404);
        assert_eq!(blue("PATCH", "/v1/rules/%2Fweb", json!({ "priority": 1 })).0, 404);
        let as_infrastructure = json!({ "name": "x", "tenant": null, "action": ["drop"] });
        let (status, error) = blue("POST", "/v1/rules", as_infrastructure);
        assert_eq!(status, 403, "{error}");
        // What undoes what infrastructure checked.
        let spoof = json!({ "name": "x", "port": "vm2", "action": [{ "set": { "src_ip": "10.9.9.9" } }] });
        assert_eq!(blue("POST", "/v1/rules", spoof).0, 422);

        assert_eq!(blue("PATCH", "/v1/ports/vm2?dry_run=true", json!({ "mtu": 1400 })).0, 200);
        let (status, error) = blue("PATCH", "/v1/ports/vm2", json!({ "vlan": { "access": 11 } }));
        assert_eq!((status, &error["where"]), (403, &json!("port[vm2].vlan")));
        assert_eq!(blue("PATCH", "/v1/ports/vm2", json!({ "tenant_keys": ["vlan", "mtu"] })).0, 422);
        assert_eq!(blue("PATCH", "/v1/ports/vm2", json!({ "tenant": null })).0, 403);
        assert_eq!(blue("DELETE", "/v1/ports/vm2", Value::Null).0, 403);
        let port = json!({ "name": "x", "uplink": "loopback" });
        assert_eq!(blue("POST", "/v1/ports", port).0, 403);
    }
    // Everything that it was refused is in the log, as its own.
    let (_, entries) = with_token(&served.socket, "GET", "/v1/audit", fake::TOKEN, &Value::Null);
    let entries = entries.as_array().unwrap();
    assert!(entries.iter().all(|entry| entry["who"]["tenant"] == "blue" && entry["who"]["by_token"] == true));
    let refused = entries.iter().filter(|entry| entry["refused"].is_string()).count();
    assert!(refused >= 20, "{refused}");
    assert!(entries.iter().any(|entry| entry["first"][0] == "- rule blue/mine"));
}

#[test]
fn nobody_is_a_tenant_without_its_token_or_user() {
    let served = fake::serve();
    let own_socket = served.socket.with_file_name("blue.sock");
    assert_eq!(get(&own_socket, "/v1/ports").0, 401, "its configuration names no user");
    for socket in [&served.socket, &own_socket] {
        for token in ["wrong", "", "blue-and-secre"] {
            let (status, error) = with_token(socket, "GET", "/v1/ports", token, &Value::Null);
            assert_eq!((status, &error["where"]), (401, &json!("authorization")));
        }
    }
    let (_, entries) = get(&served.socket, "/v1/audit");
    let text = entries.to_string();
    assert!(text.contains("the token is nobody's") && text.contains("is not among the tenant's"), "{text}");
    assert!(!text.contains("blue-and-secre"), "no token is repeated");
}

#[test]
fn several_rules_are_changed_as_one() {
    let served = fake::serve();
    let s = &served.socket;
    let add = |name: &str| json!({ "op": "add", "rule": { "name": name, "action": ["pass"] } });
    let edits = json!([add("a"), add("b"), { "op": "del", "name": "web" }]);
    assert_eq!(call(s, "POST", "/v1/rules/batch", edits.clone()).1["changes"].as_array().unwrap().len(), 3);
    // The second time the first of them is there already, and nothing is done of the others.
    let before = get(s, "/v1/config").1;
    let edits = json!([add("c"), add("a")]);
    assert_eq!(call(s, "POST", "/v1/rules/batch", edits).0, 409);
    assert_eq!(get(s, "/v1/config").1, before);
    let (status, changed) =
        call(s, "POST", "/v1/groups/web/members", json!({ "add": ["::1"], "del": ["10.0.0.1"] }));
    assert_eq!((status, &changed["changes"][0]["group"]["addresses"]), (200, &json!(["10.1.0.0/16", "::1"])));
    let (status, error) = call(s, "DELETE", "/v1/groups/none", Value::Null);
    assert_eq!((status, &error["error"]), (404, &json!("there is no group `none`")));
}

#[test]
fn events_are_lines() {
    let mut served = fake::serve();
    let mut stream = UnixStream::connect(&served.socket).unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    // Its answer's head says that it listens.
    let mut first = [0; 1];
    stream.read_exact(&mut first).unwrap();
    call(&served.socket, "POST", "/v1/rules", json!({ "name": "x", "action": ["drop"] }));
    call(&served.socket, "DELETE", "/v1/rules/none", Value::Null);
    let mut text = String::new();
    while !text.contains("refused") {
        let mut buffer = [0; 512];
        let n = stream.read(&mut buffer).unwrap();
        assert_ne!(n, 0, "it ended: {text}");
        text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
    served.stop();
    assert!(text.contains(r#""event":"applied","changes":1,"first":["+ rule x "#), "{text}");
    assert!(text.contains(r#""event":"refused","request":"DELETE /v1/rules/none""#), "{text}");
}
