//! The traces of the demo's shop.
//!
//! In: a trace. Out: its documents, in the order in which the services would have sent them: a
//! called service sends its segment before its caller.

use super::trace::{FromTo, Trace, call, http, id, query, served, table, with};
use serde_json::{Value, json};

const SHOP: &str = "shop.example";

/// Returns the segment of the shop.
fn shop(trace: &Trace, id: &str, to_ms: u32, fields: Value) -> Value {
    trace.document(id, SHOP, (0, to_ms), trace.on_host(fields))
}

fn answer(method: &str, path: &str, status: u16, more: &Value) -> Value {
    with(served(method, &format!("https://{SHOP}{path}"), status), more)
}

/// The home page: two calls of a table, and nothing special.
pub(super) fn home(trace: &Trace) -> Vec<Value> {
    let calls = json!([
        trace.step("DynamoDB", (4, 15), table("GetItem", "sessions")),
        trace.step("DynamoDB", (16, 39), table("Query", "offers")),
        trace.step("render", (41, 88), json!({})),
    ]);
    vec![shop(
        trace,
        &id(),
        92,
        answer("GET", "/", 200, &json!({"user": "bo", "subsegments": calls})),
    )]
}

/// A checkout that succeeds, with three services, an SQL query and a DynamoDB table.
pub(super) fn checkout(trace: &Trace) -> Vec<Value> {
    let [root, stock_call, stock, price_call, price] = std::array::from_fn(|_| id());
    let stock_url = "http://inventory.internal/items/42";
    let price_url = "http://pricing.internal/quote";
    let calls = json!([
        trace.part(&stock_call, "inventory", (18, 138), call("GET", stock_url, 200)),
        trace.part(&price_call, "pricing", (141, 236), call("POST", price_url, 200)),
        trace.step("DynamoDB", (240, 275), table("GetItem", "carts")),
        trace.step("render", (280, 471), json!({})),
    ]);
    let select = query("SELECT count FROM stock WHERE item = ?");
    vec![
        trace.service(
            &stock,
            "inventory",
            (24, 131),
            with(
                served("GET", stock_url, 200),
                &json!({"parent_id": stock_call,
                    "subsegments": [trace.step("stock@inventory-db", (31, 118), select)]}),
            ),
        ),
        trace.service(
            &price,
            "pricing",
            (147, 229),
            with(served("POST", price_url, 200), &json!({"parent_id": price_call})),
        ),
        shop(
            trace,
            &root,
            482,
            answer(
                "GET",
                "/checkout",
                200,
                &json!({"user": "ana", "annotations": {"customer": "returning", "items": 3},
                    "metadata": {"shop": {"cart": {"currency": "EUR",
                        "lines": [{"sku": "tea-12", "quantity": 2, "price": 4.5}]}}},
                    "subsegments": calls}),
            ),
        ),
    ]
}

/// A search whose query takes two seconds.
pub(super) fn search(trace: &Trace) -> Vec<Value> {
    let [root, search_call, search] = std::array::from_fn(|_| id());
    let url = "http://search.internal/find";
    let slow = query("SELECT id, title FROM items WHERE title ILIKE ? ORDER BY rank LIMIT ?");
    let steps = json!([
        trace.step("parse", (9, 13), json!({})),
        trace.step("items@search-db", (14, 2_026), slow),
        trace.step("rank", (2_028, 2_061), json!({})),
    ]);
    let calls = json!([trace.part(&search_call, "search", (3, 2_069), call("GET", url, 200))]);
    vec![
        trace.service(
            &search,
            "search",
            (7, 2_064),
            with(
                served("GET", url, 200),
                &json!({"parent_id": search_call, "annotations": {"hits": 412},
                    "subsegments": steps}),
            ),
        ),
        shop(
            trace,
            &root,
            2_094,
            answer("GET", "/search?q=tea", 200, &json!({"user": "chidi", "subsegments": calls})),
        ),
    ]
}

/// A request for a cart that a DynamoDB table throttles. The segment is first sent in progress.
pub(super) fn throttled_cart(trace: &Trace) -> Vec<Value> {
    let root = id();
    let request =
        json!({"http": {"request": {"method": "PUT", "url": "https://shop.example/cart"}}});
    let throttled = with(
        table("PutItem", "carts"),
        &json!({
            "trace_id": trace.id, "type": "subsegment", "parent_id": root,
            "error": true, "throttle": true, "http": {"response": {"status": 400}},
            "cause": {"exceptions": [{"id": id(), "remote": true,
                "type": "ProvisionedThroughputExceededException",
                "message": "Rate of requests exceeds the allowed throughput"}]},
        }),
    );
    vec![
        trace.open(&root, SHOP, 0, trace.on_host(request)),
        trace.step("DynamoDB", (9, 164), throttled),
        shop(trace, &root, 171, answer("PUT", "/cart", 429, &json!({"user": "bo"}))),
    ]
}

/// A request for a cart that succeeds after the SDK has tried a call again.
pub(super) fn cart(trace: &Trace) -> Vec<Value> {
    let mut put = table("PutItem", "carts");
    put["aws"]["retries"] = json!(2);
    let calls =
        json!(
            [trace.step("DynamoDB", (8, 212), put), trace.step("render", (215, 239), json!({})),]
        );
    let more = json!({"user": "bo", "annotations": {"items": 4}, "subsegments": calls});
    vec![shop(trace, &id(), 244, answer("PUT", "/cart", 200, &more))]
}

/// An order that goes through a queue: a worker takes it after the shop has answered.
pub(super) fn queued_order(trace: &Trace) -> Vec<Value> {
    let [root, send, work, pay_call, pay] = std::array::from_fn(|_| id());
    let queue = json!({
        "namespace": "aws", "http": {"response": {"status": 200}},
        "aws": {"operation": "SendMessage", "region": "eu-central-1",
            "queue_url": "https://sqs.eu-central-1.amazonaws.com/123456789012/orders"},
    });
    let url = "http://payments.internal/charge";
    let receipt = json!({
        "namespace": "aws", "http": {"response": {"status": 200}},
        "aws": {"operation": "PutObject", "bucket_name": "receipts", "region": "eu-central-1"},
    });
    let insert = query("INSERT INTO ledger (order_id, amount) VALUES (?, ?)");
    vec![
        shop(
            trace,
            &root,
            61,
            answer(
                "POST",
                "/orders",
                202,
                &json!({"user": "ana", "annotations": {"customer": "returning", "items": 2},
                    "subsegments": [trace.part(&send, "SQS", (22, 54), queue)]}),
            ),
        ),
        trace.service(
            &pay,
            "payments",
            (668, 851),
            with(
                served("POST", url, 200),
                &json!({"parent_id": pay_call,
                    "subsegments": [trace.step("ledger@payments-db", (803, 846), insert)]}),
            ),
        ),
        trace.service(
            &work,
            "order-worker",
            (640, 941),
            json!({"parent_id": send, "subsegments": [
                trace.part(&pay_call, "payments", (661, 857), call("POST", url, 200)),
                trace.step("S3", (862, 929), receipt),
            ]}),
        ),
    ]
}

/// An order whose first call of another service fails, and whose second call succeeds.
pub(super) fn retried_order(trace: &Trace) -> Vec<Value> {
    let [root, first, restarting, second, price] = std::array::from_fn(|_| id());
    let url = "http://pricing.internal/quote";
    let refused = with(
        call("POST", url, 503),
        &json!({"cause": {"exceptions": [{"id": id(), "type": "ServiceUnavailable",
            "message": "pricing is restarting, try again in 100 ms",
            "stack": [{"path": "shop/clients/http.py", "line": 74, "label": "send"},
                {"path": "shop/orders.py", "line": 31, "label": "quote"}]}]}}),
    );
    let calls = json!([
        trace.part(&first, "pricing", (12, 19), refused),
        trace.step("wait before the next attempt", (20, 121), json!({})),
        trace.part(&second, "pricing", (122, 218), call("POST", url, 200)),
        trace.step("DynamoDB", (221, 240), table("PutItem", "orders")),
    ]);
    let more = json!({"user": "chidi", "annotations": {"customer": "new", "attempts": 2},
        "subsegments": calls});
    vec![
        trace.service(
            &restarting,
            "pricing",
            (14, 17),
            with(served("POST", url, 503), &json!({"parent_id": first})),
        ),
        trace.service(
            &price,
            "pricing",
            (127, 211),
            with(served("POST", url, 200), &json!({"parent_id": second})),
        ),
        shop(trace, &root, 251, answer("POST", "/orders", 200, &more)),
    ]
}

/// Returns the exceptions of the failed charge, the outermost first.
fn chain(ids: &[String; 3]) -> Value {
    let frame =
        |path: &str, line: u32, label: &str| json!({"path": path, "line": line, "label": label});
    json!({"working_directory": "/srv/payments", "exceptions": [
        {"id": ids[0], "type": "CardDeclined", "message": "the card issuer did not answer",
            "cause": ids[1], "stack": [frame("payments/charge.py", 88, "charge"),
                frame("payments/api.py", 40, "post_charge")]},
        {"id": ids[1], "type": "UpstreamTimeout", "message": "no answer within 250 ms",
            "cause": ids[2], "stack": [frame("payments/issuer.py", 41, "ask"),
                frame("payments/charge.py", 71, "charge")]},
        {"id": ids[2], "type": "ConnectionResetError",
            "message": "[Errno 104] Connection reset by peer",
            "stack": [frame("payments/http.py", 210, "send"),
                frame("payments/issuer.py", 36, "ask")]},
    ]})
}

/// An order that fails: three exceptions, one the cause of the other, in two services below.
pub(super) fn failed_order(trace: &Trace) -> Vec<Value> {
    let [root, stock_call, stock, pay_call, pay, issuer] = std::array::from_fn(|_| id());
    let exceptions: [String; 3] = std::array::from_fn(|_| id());
    let stock_url = "http://inventory.internal/reservations";
    let (url, issuer_url) = ("http://payments.internal/charge", "https://issuer.example/authorize");
    let reserve = query("UPDATE stock SET reserved = reserved + ? WHERE item = ?");
    let lost = json!({"namespace": "remote", "fault": true, "cause": exceptions[2],
        "http": {"request": {"method": "POST", "url": issuer_url}}});
    let scores = trace.step("DynamoDB", (75, 88), table("GetItem", "scores"));
    let steps = json!([
        trace.step(
            "fraud check",
            (72, 91),
            json!({"annotations": {"score": 12}, "subsegments": [scores]})
        ),
        trace.part(&issuer, "issuer.example", (93, 344), lost),
    ]);
    let failed = with(
        served("POST", url, 500),
        &json!({"parent_id": pay_call, "cause": chain(&exceptions), "subsegments": steps}),
    );
    let calls = json!([
        trace.step("DynamoDB", (4, 11), table("GetItem", "carts")),
        trace.part(&stock_call, "inventory", (12, 58), call("POST", stock_url, 201)),
        trace.part(&pay_call, "payments", (60, 366), call("POST", url, 500)),
        trace.step("render the error", (367, 371), json!({})),
    ]);
    let more = json!({"user": "ana", "annotations": {"customer": "returning", "items": 1},
        "cause": exceptions[0], "subsegments": calls});
    vec![
        trace.service(
            &stock,
            "inventory",
            (17, 53),
            with(
                served("POST", stock_url, 201),
                &json!({"parent_id": stock_call,
                    "subsegments": [trace.step("stock@inventory-db", (21, 49), reserve)]}),
            ),
        ),
        trace.service(&pay, "payments", (67, 358), failed),
        shop(trace, &root, 373, answer("POST", "/orders", 502, &more)),
    ]
}

/// A request for an item that does not exist.
pub(super) fn missing_item(trace: &Trace) -> Vec<Value> {
    let [root, stock_call, stock] = std::array::from_fn(|_| id());
    let url = "http://inventory.internal/items/999";
    let select = query("SELECT count FROM stock WHERE item = ?");
    vec![
        trace.service(
            &stock,
            "inventory",
            (9, 27),
            with(
                served("GET", url, 404),
                &json!({"parent_id": stock_call,
                    "subsegments": [trace.step("stock@inventory-db", (12, 22), select)]}),
            ),
        ),
        shop(
            trace,
            &root,
            37,
            answer(
                "GET",
                "/items/999",
                404,
                &json!({"subsegments":
                    [trace.part(&stock_call, "inventory", (5, 31), call("GET", url, 404))]}),
            ),
        ),
    ]
}

/// A nightly job that writes many items, in a document of many subsegments.
pub(super) fn import(trace: &Trace) -> Vec<Value> {
    let mut now = 12;
    let mut batches = vec![trace.step(
        "S3",
        (2, 11),
        json!({
        "namespace": "aws", "http": {"response": {"status": 200}},
        "aws": {"operation": "GetObject", "bucket_name": "supplier-feeds"}}),
    )];
    for batch in 0..12_u32 {
        let length = 18 + (batch * 37) % 23;
        let from_to: FromTo = (now, now + length);
        batches.push(trace.step("DynamoDB", from_to, table("BatchWriteItem", "offers")));
        now += length + 2;
    }
    let more = json!({"origin": "AWS::Lambda::Function", "annotations": {"offers": 300},
        "subsegments": batches});
    vec![trace.document(&id(), "import-offers", (0, now + 6), more)]
}

/// A report that is still being made: the segment is in progress.
pub(super) fn report(trace: &Trace) -> Vec<Value> {
    let root = id();
    let request = json!({"user": "ana", "http": {"request": {"method": "POST",
            "url": "https://shop.example/reports"}}});
    let done = with(
        query("SELECT day, sum(amount) FROM ledger GROUP BY day"),
        &json!({"trace_id": trace.id, "type": "subsegment", "parent_id": root}),
    );
    vec![
        trace.open(&root, SHOP, 0, trace.on_host(request)),
        trace.step("ledger@payments-db", (14, 386), done),
    ]
}

/// Returns a request whose answer the shop had in its cache.
pub(super) fn cached(trace: &Trace) -> Vec<Value> {
    let fields = json!({"http": http("GET", "https://shop.example/items/42", 304)});
    vec![shop(trace, &id(), 3, fields)]
}
