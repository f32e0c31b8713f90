//! Tests of the catalogue.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use rust_decimal::Decimal;

use super::*;
use crate::core::cost::Unit;

fn on(day: &str, hour: u64) -> SystemTime {
    let days = (0..40_000)
        .find(|days| Moment::at(UNIX_EPOCH + Duration::from_secs(days * 86_400)).day.to_string() == day);
    UNIX_EPOCH + Duration::from_secs(days.unwrap() * 86_400 + hour * 3_600)
}

fn catalog(rows: &str) -> Catalog {
    Catalog::from_bytes(format!(
        "{{\"format\":1,\"sources\":{{\"a source\":\"3\"}},\"models\":{{\n{rows}\n}}}}\n"
    ))
}

fn model(row: &str) -> Arc<ModelInfo> {
    catalog(&format!("\"p/m\":{row}")).get("p", "m").expect("a row")
}

fn total(model: &ModelInfo, usage: &Usage, facts: &PriceFacts<'_>) -> Option<String> {
    model.cost(usage, facts).map(|cost| cost.total.to_string())
}

#[test]
fn the_shipped_file_is_well_formed_and_every_row_is_found() {
    let text = std::str::from_utf8(SHIPPED).unwrap();
    let count = Catalog::check(text).unwrap();
    assert!(count > 2_000, "{count}");
    let catalog = Catalog::shipped();
    let all = catalog.all().unwrap();
    assert_eq!(all.len(), count);
    for info in &all {
        assert_eq!(catalog.get(info.provider(), info.model()).as_deref(), Some(info));
        for entry in &info.prices {
            let free = entry.standard.listed().all(|(_, price)| price.is_zero());
            assert!(!free || info.key.ends_with(":free"), "{} is free", info.key);
        }
    }
    // Other names lead to rows.
    let names: Map<String, Value> = serde_json::from_str::<Header>(text).unwrap().models;
    assert!(names.iter().filter(|(_, value)| value.is_string()).count() > 100);
    for (key, _) in names.iter().filter(|(_, value)| value.is_string()) {
        let (provider, model) = key.split_once('/').unwrap();
        assert!(catalog.get(provider, model).is_some(), "{key}");
    }
}

#[test]
fn rows_are_found_in_a_file_as_in_memory() {
    let mut file = std::env::temp_dir();
    file.push(format!("liter-llm-catalogue-{}.json", std::process::id()));
    std::fs::File::create(&file).unwrap().write_all(SHIPPED).unwrap();
    let (memory, disk) = (Catalog::shipped(), Catalog::from_path(&file));
    for info in memory.all().unwrap().iter().step_by(7) {
        assert_eq!(disk.get(info.provider(), info.model()).as_deref(), Some(info));
    }
    assert_eq!(disk.get("openai", "no-such-model"), None);
    assert_eq!(disk.get("aaa", "a"), None);
    assert_eq!(disk.get("zzz", "z"), None);
    std::fs::remove_file(&file).unwrap();
    let gone = Catalog::from_path(&file);
    assert_eq!(gone.get("openai", "gpt-4o"), None);
    assert!(gone.problem().is_some());
    assert!(Catalog::from_bytes("{\"format\":2,\"models\":{\n}}").problem().unwrap().contains("`format`: 2"));
}

#[test]
fn names_with_dates_latest_and_fine_tuned_are_understood() {
    let catalog = catalog(concat!(
        "\"p/ft:m\":{\"prices\":[{\"input\":\"9\",\"output\":\"9\"}]},\n",
        "\"p/m\":{\"prices\":[{\"input\":\"1\",\"output\":\"2\"}]},\n",
        "\"p/m-2024-05-13\":{\"prices\":[{\"input\":\"5\",\"output\":\"15\"}]},\n",
        "\"p/other\":\"p/m\"",
    ));
    let key = |name: &str| catalog.get("p", name).map(|info| info.key.clone());
    let plain = Some("p/m".to_owned());
    for name in [
        "m",
        "M",
        "m-2025-01-31",
        "m-20250131",
        "m@20250131",
        "m-latest",
        "other",
        "other-2025-01-31",
        "m-latest-2025-01-31",
    ] {
        assert_eq!(key(name), plain, "{name}");
    }
    assert_eq!(key("m-2024-05-13"), Some("p/m-2024-05-13".to_owned()));
    assert_eq!(key("ft:m:my-org::id"), Some("p/ft:m".to_owned()));
    for name in
        ["m-2025-02-30", "m-2503", "m:free", "mm", "m-", "", "ft:x:o::i", "m-1025-01-31", "m\"", "x\\"]
    {
        assert_eq!(key(name), None, "{name}");
    }
}

#[test]
fn every_part_of_a_usage_has_its_price_or_there_is_no_cost() {
    let model = model(
        r#"{"prices":[{"input":"3","output":"15","cache_read":"0.3","cache_write_5m":"3.75","cache_write_1h":"6","audio_input":"40","audio_output":"80","reasoning_output":"20","requests":"5","web_searches":"10"}],"sources":{"prices":"a source"}}"#,
    );
    let usage = Usage {
        input_tokens: 1_000,
        output_tokens: 500,
        cache_read_input_tokens: 100,
        cache_creation_input_tokens: 250,
        cache_creation_1h_input_tokens: 50,
        audio_input_tokens: 10,
        audio_output_tokens: 20,
        reasoning_output_tokens: 30,
        web_search_requests: 2,
        ..Usage::default()
    };
    let cost = model.cost(&usage, &PriceFacts::default()).unwrap();
    let parts: Vec<(Unit, u64, String)> =
        cost.parts.iter().map(|part| (part.what, part.units, part.amount.to_string())).collect();
    let expected = [
        (Unit::Input, 640, "0.00192"),
        (Unit::CacheRead, 100, "0.00003"),
        (Unit::CacheWrite5m, 200, "0.00075"),
        (Unit::CacheWrite1h, 50, "0.0003"),
        (Unit::AudioInput, 10, "0.0004"),
        (Unit::Output, 450, "0.00675"),
        (Unit::ReasoningOutput, 30, "0.0006"),
        (Unit::AudioOutput, 20, "0.0016"),
        (Unit::Requests, 1, "0.005"),
        (Unit::WebSearches, 2, "0.02"),
    ];
    assert_eq!(parts, expected.map(|(unit, count, amount)| (unit, count, amount.to_owned())));
    assert_eq!(cost.total.to_string(), "0.03735");
    assert_eq!((&*cost.currency, cost.price_source.as_str()), ("USD", "a source 3: p/m"));
    let json = serde_json::to_string(&cost).unwrap();
    assert!(json.starts_with(
        r#"{"total":"0.03735","parts":[{"what":"input","units":640,"price":"3","amount":"0.00192"}"#
    ));
    assert_eq!(serde_json::from_str::<Cost>(&json).unwrap(), cost);

    let bare = self::model(r#"{"prices":[{"input":"3","output":"15"}]}"#);
    let facts = PriceFacts::default();
    let plain = Usage { input_tokens: 10, output_tokens: 10, ..Usage::default() };
    assert_eq!(total(&bare, &plain, &facts).as_deref(), Some("0.00018"));
    let used: [fn(&mut Usage); 5] = [
        |usage| usage.cache_read_input_tokens = 1,
        |usage| usage.cache_creation_input_tokens = 1,
        |usage| usage.audio_input_tokens = 1,
        |usage| usage.audio_output_tokens = 1,
        |usage| usage.web_search_requests = 1,
    ];
    for set in used {
        let mut usage = plain.clone();
        set(&mut usage);
        assert_eq!(total(&bare, &usage, &facts), None, "{usage:?}");
        assert!(total(&model, &usage, &facts).is_some(), "{usage:?}");
    }
    // Nothing counted, counts that contradict each other, no prices at all.
    assert_eq!(total(&bare, &Usage::default(), &facts), None);
    let wrong = Usage { input_tokens: 5, cache_read_input_tokens: 6, ..plain.clone() };
    assert_eq!(total(&model, &wrong, &facts), None);
    assert_eq!(total(&self::model(r#"{"limits":{"context":5}}"#), &plain, &facts), None);
    let huge = Usage { input_tokens: u64::MAX, output_tokens: u64::MAX, ..Usage::default() };
    assert_eq!(total(&bare, &huge, &facts).as_deref(), Some("332041393326771.92907"));
}

#[test]
fn prices_change_with_days_hours_tiers_and_ways_of_processing() {
    let model = model(
        r#"{"prices":[{"input":"10","output":"0"},{"from":"2026-01-15","input":"2","output":"0","tiers":[{"above":200,"input":"4"},{"above":100,"input":"3"}],"modes":{"batch":{"input":"1"},"flex":{"tiers":[{"above":100,"input":"1.5"}],"input":"1.2"}}}],"geo_factors":{"us":"1.1"}}"#,
    );
    let price = |tokens: u64, day: &str, mode: Option<&str>| {
        let usage = Usage { input_tokens: tokens, ..Usage::default() };
        model.cost(&usage, &PriceFacts { at: on(day, 0), mode }).map(|cost| cost.parts[0].price.to_string())
    };
    assert_eq!(price(100, "2026-01-14", None).as_deref(), Some("10"));
    assert_eq!(price(100, "2026-01-15", None).as_deref(), Some("2"));
    assert_eq!(price(101, "2026-01-15", None).as_deref(), Some("3"));
    assert_eq!(price(200, "2026-01-15", None).as_deref(), Some("3"));
    assert_eq!(price(201, "2026-01-15", None).as_deref(), Some("4"));
    assert_eq!(price(100, "2026-01-15", Some("batch")).as_deref(), Some("1"));
    assert_eq!(price(101, "2026-01-15", Some("flex")).as_deref(), Some("1.5"));
    assert_eq!(price(100, "2026-01-15", Some("flex")).as_deref(), Some("1.2"));
    // No price is known for these.
    assert_eq!(price(100, "2026-01-15", Some("priority")), None);
    assert_eq!(price(100, "2026-01-14", Some("batch")), None);

    let mut usage = Usage { input_tokens: 100, ..Usage::default() };
    let facts = PriceFacts::at(on("2026-02-01", 5));
    for (tier, expected) in
        [(None, "2"), (Some("default"), "2"), (Some("on_demand"), "2"), (Some("flex"), "1.2")]
    {
        let cost = model.cost(&usage, &facts.with_service_tier(tier)).unwrap();
        assert_eq!(cost.parts[0].price.to_string(), expected);
    }
    usage.extra.insert("inference_geo".into(), crate::core::json::RawJson::from("us"));
    assert_eq!(total(&model, &usage, &facts).as_deref(), Some("0.00022"));

    let night = self::model(
        r#"{"prices":[{"input":"1","output":"0"},{"hours":["00:30","16:30"],"input":"2","output":"0"}]}"#,
    );
    let usage = Usage { input_tokens: 1_000_000, ..Usage::default() };
    assert_eq!(total(&night, &usage, &PriceFacts::at(on("2026-02-01", 16))).as_deref(), Some("2"));
    assert_eq!(total(&night, &usage, &PriceFacts::at(on("2026-02-01", 17))).as_deref(), Some("1"));
}

#[test]
fn estimates_and_needs_serve_the_choice_of_a_model() {
    let model = model(
        r#"{"limits":{"context":1000,"output":100},"input":["text","image"],"features":{"tools":true,"audio_input":false},"prices":[{"input":"3","output":"15","cache_read":"0.3","tiers":[{"above":500,"input":"6"}]}]}"#,
    );
    let now = SystemTime::now();
    assert_eq!(model.estimate(100, 50, 10, now), Some(Decimal::new(315, 6)));
    assert_eq!(model.estimate(600, 0, 0, now), Some(Decimal::new(3_600, 6)));
    assert_eq!(self::model("{}").estimate(1, 0, 1, now), None);
    let can = |feature| model.supports(Need::Feature(feature));
    assert_eq!(can(Feature::Tools), Some(true));
    assert_eq!(can(Feature::ImageInput), Some(true));
    assert_eq!(can(Feature::AudioInput), Some(false));
    assert_eq!(can(Feature::Logprobs), None);
    assert_eq!(model.supports(Need::Context(1_000)), Some(true));
    assert_eq!(model.supports(Need::Context(1_001)), Some(false));
    assert_eq!(model.supports(Need::Output(101)), Some(false));
    assert_eq!(self::model("{}").supports(Need::Context(1)), None);
}

#[test]
fn rows_of_ones_own_win_field_by_field() {
    let own = r#"{"format":1,"models":{
        "openai/GPT-4o":{"prices":[{"input":"1.25","output":"5"}]},
        "mine/model":{"limits":{"context":10}},
        "mine/other":"openai/gpt-4o"}}"#;
    let catalog = Catalog::shipped().with_own(own, "my.json").unwrap();
    for (provider, name) in [("openai", "gpt-4o"), ("mine", "other")] {
        let info = catalog.get(provider, name).unwrap();
        assert_eq!(info.limits.context, Some(128_000), "{provider}");
        let usage = Usage { input_tokens: 1_000_000, ..Usage::default() };
        let cost = info.cost(&usage, &PriceFacts::default()).unwrap();
        assert_eq!(
            (cost.total.to_string().as_str(), cost.price_source.as_str()),
            ("1.25", "your own: openai/gpt-4o")
        );
    }
    assert_eq!(catalog.get("mine", "model").unwrap().limits.context, Some(10));
    assert!(catalog.all().unwrap().iter().any(|info| info.key == "mine/model"));
}

#[test]
fn what_is_wrong_in_a_file_is_named() {
    let own = |json: &str| Catalog::empty().with_own(json, "my.json").unwrap_err().to_string();
    for (json, told) in [
        ("{\"format\":1,\n\"models\":{,}}", "my.json: key must be a string"),
        ("{\"format\":1,\n\"models\":{,}}", "line 2"),
        (r#"{"format":7}"#, "`format`: 7 is unknown"),
        (r#"{"format":1,"model":{}}"#, "unknown field `model`"),
        (r#"{"format":1,"models":{"gpt":{}}}"#, "`gpt`: a key is written as `provider/model`"),
        (
            r#"{"format":1,"models":{"a/b":{"limit":{}}}}"#,
            "`a/b`: `limit` is unknown; did you mean `limits`?",
        ),
        (
            r#"{"format":1,"models":{"a/b":{"prices":[{"inptu":"1"}]}}}"#,
            "`inptu` is unknown; did you mean `input`?",
        ),
        (
            r#"{"format":1,"models":{"a/b":{"prices":[{"input":1.5}]}}}"#,
            "`input` is not a price written as text",
        ),
        (r#"{"format":1,"models":{"a/b":{"prices":[{"input":"-1"}]}}}"#, "`input`: -1 is not a price"),
        (r#"{"format":1,"models":{"a/b":{"prices":[{"input":"1e3"}]}}}"#, "is not a decimal number"),
        (r#"{"format":1,"models":{"a/b":{"prices":[{"from":"2026-02-30"}]}}}"#, "is not a day"),
        (r#"{"format":1,"models":{"a/b":{"features":{"tool":true}}}}"#, "`features`: unknown variant `tool`"),
        (r#"{"format":1,"models":{"a/b":7}}"#, "is neither a row nor another name"),
    ] {
        let error = own(json);
        assert!(error.contains(told), "{error}");
    }
    let check = |rows: &str| {
        Catalog::check(&format!("{{\"format\":1,\"models\":{{\n{rows}")).unwrap_err().to_string()
    };
    assert!(check("\"a/b\":{},\n\"a/a\":{}\n}}").contains("line 3: `a/a` must not come after `a/b`"));
    assert!(check("\"a/a\":{},\n\"a/b\":{\"x\":1}\n}}").contains("line 3: `a/b`: `x` is unknown"));
    assert!(check("\"a/a\":{},\n\"a/b\":{\n}}").contains("line 3: `a/b`"));
    assert!(check("\"a/a\":{}\n").contains("ends before its last line"));
    assert!(check("\"a/a\":\"a/b\"\n}}").contains("`a/a` names `a/b`, which has no row"));
    assert_eq!(Catalog::check("{\"format\":1,\"models\":{\n\"a/a\":{}\n}}\n").unwrap(), 1);
}

#[test]
fn names_that_go_in_circles_end() {
    let catalog = catalog("\"p/a\":\"p/b\",\n\"p/b\":\"p/a\"");
    assert_eq!(catalog.get("p", "a"), None);
}

#[test]
fn a_deployment_is_priced_by_the_model_that_answered() {
    let rows = concat!(
        "\"p/m\":{\"prices\":[{\"input\":\"1\",\"output\":\"0\"}]},\n",
        "\"p/m:cheap\":{\"prices\":[{\"input\":\"0.1\",\"output\":\"0\"}]},\n",
        "\"p/new\":{\"prices\":[{\"input\":\"7\",\"output\":\"0\"}]}",
    );
    let pricing = Arc::new(catalog(rows)).pricing("p", "m");
    let usage = Usage { input_tokens: 1_000_000, ..Usage::default() };
    let total = |asked: Option<&str>, answered: &str| {
        pricing.cost(asked, answered, &usage, None).map(|cost| cost.total.to_string())
    };
    assert_eq!(total(None, "m-2026-01-01").as_deref(), Some("1"));
    assert_eq!(total(None, "new").as_deref(), Some("7"));
    assert_eq!(total(None, "a name of the host's").as_deref(), Some("1"));
    assert_eq!(total(Some("m:cheap"), "m").as_deref(), Some("0.1"));
    // Another model was asked than the deployment's own: its price says nothing.
    assert_eq!(total(Some("unknown"), "unknown-1"), None);
    assert_eq!(total(None, "").as_deref(), Some("1"));
}
