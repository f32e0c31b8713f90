// The host's meter has the metrics that Prometheus gets: the same names, labels, kinds and values.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, beforeEach, test } from "node:test";
import {
  AggregationTemporality,
  DataPointType,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from "@opentelemetry/sdk-metrics";
import { LiterLLM, PrometheusExporter, ProviderRouter } from "liter-llm";
import { eventually, Simulator } from "./simulator.mjs";

const names = createRequire(import.meta.url)("../dist/telemetry/names.js");
const METRICS = Object.values(names).filter((value) => value.unit !== undefined);
/** What one of both has and the other does not, and why. There is nothing of the kind. */
const ONLY_PROMETHEUS = {};
const ONLY_THE_METER = {};

/** A metric's name as Prometheus has it, a counter's without `_total`. */
const spelled = ({ name, unit }) => name.replaceAll(".", "_") + (unit === "s" ? "_seconds" : "");
const sorted = (keys, without) => [...keys].filter((key) => !(key in without)).sort();
const of = (labels) => JSON.stringify(Object.entries(labels).sort());
const labelsOf = (key) => Object.fromEntries(JSON.parse(key));

let sim;
before(async () => {
  sim = await Simulator.start();
});
after(() => sim.stop());
beforeEach(() => sim.reset());

/** A meter of a host's, and what it has sent: kinds and series by name, in Prometheus' spelling. */
function host() {
  const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 });
  const meterProvider = new MeterProvider({ readers: [reader] });
  const collect = async () => {
    exporter.reset();
    await reader.forceFlush();
    const kinds = {};
    const series = {};
    for (const { scopeMetrics } of exporter.getMetrics().slice(-1)) {
      for (const { descriptor, dataPointType, isMonotonic, dataPoints } of scopeMetrics.flatMap(
        ({ metrics }) => metrics,
      )) {
        const name = spelled(METRICS.find((metric) => metric.name === descriptor.name));
        if (dataPoints.length === 0) continue;
        const sum = dataPointType === DataPointType.SUM;
        assert.ok(!sum || isMonotonic, name);
        kinds[name] = sum ? "counter" : dataPointType === DataPointType.HISTOGRAM ? "histogram" : "gauge";
        series[name] = {};
        for (const { attributes, value } of dataPoints) {
          const labels = Object.entries(attributes).map(([key, text]) => [key.replaceAll(".", "_"), String(text)]);
          const counted = typeof value === "number" ? value : { buckets: value.buckets.counts, sum: value.sum };
          series[name][of(Object.fromEntries(labels))] = counted;
        }
      }
    }
    return { kinds, series };
  };
  return { meterProvider, collect };
}

/** The same of Prometheus' text. */
function read(text) {
  const kinds = {};
  const series = {};
  for (const line of text.split("\n").filter(Boolean)) {
    const typed = /^# TYPE (\S+) (\S+)$/.exec(line);
    if (typed) kinds[typed[1]] = typed[2];
    const sample = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!sample) {
      assert.ok(line.startsWith("#"), line);
      continue;
    }
    const labels = Object.fromEntries(
      [...(sample[2] ?? "").matchAll(/([a-z_]+)="([^"]*)"/g)].map(([, ...pair]) => pair),
    );
    const [, base, part] = /^(.*)_([a-z]+)$/.exec(sample[1]);
    const value = Number(sample[3]);
    if (kinds[base] !== "histogram") {
      const name = sample[1].replace(/_total$/, "");
      series[name] = { ...series[name], [of(labels)]: value };
      continue;
    }
    delete labels.le;
    series[base] ??= {};
    series[base][of(labels)] ??= { buckets: [], sum: 0 };
    const histogram = series[base][of(labels)];
    // A bucket's count has those of the ones below in it.
    if (part === "bucket") histogram.buckets.push(value - histogram.buckets.reduce((sum, count) => sum + count, 0));
    if (part === "sum") histogram.sum = value;
  }
  return { kinds, series };
}

const settled = (router) => () => router.mirror().inFlight === 0;

/** A scenario in which every metric has something to say. */
async function played(telemetry) {
  const price = { input: 1000, output: 2000 };
  const deployments = ["old", "new", "copy"].map((name) =>
    sim.config("openai", { model: name, name, region: "eu", price, maxRetries: 0 }),
  );
  const router = new ProviderRouter(deployments, {
    budget: { usd: 50, per: "day" },
    canary: { model: "new", percent: 50, guard: { cost: false, latency: false } },
    mirror: { to: "copy", percent: 50 },
    telemetry,
  });
  const single = new LiterLLM(sim.config("openai", { name: "solo", cache: true }), { telemetry });
  const exporter = new PrometheusExporter([router, single]);
  const hook = single.onCall(() => undefined, { queue: 1 });
  for (let call = 0; call < 3; call += 1) await single.generate("Hello", { maxTokens: 5 });
  await assert.rejects(single.generate("Hello", { temperature: 7 }));
  await sim.rules({ match: { times: 1 }, fault: { status: 503, headers: { "retry-after-ms": "1" } } });
  await single.stream("Hello, once more", { maxTokens: 5 }).untilDone();
  await sim.rules();
  await single.generate("Hello", { model: "a name that is too long for a label ".repeat(4), maxTokens: 1 });
  // Hooks do not run while this thread is busy; the engine goes on, and its records find the queue full.
  const answers = Array.from({ length: 30 }, (_, call) => single.generate(`Hello ${call}`, { maxTokens: 1 }));
  const until = performance.now() + 300;
  while (performance.now() < until);
  await Promise.all(answers);
  assert.ok(hook.dropped > 0);
  await sim.rules(
    { match: { model: "new", percent: 40 }, fault: { status: 503 } },
    { match: { model: "copy", every: 2 }, fault: { status: 400 } },
  );
  for (let calls = 0; router.canary().state === "running"; calls += 1) {
    assert.ok(calls < 1000);
    await router.generate("Hello", { maxTokens: 3 });
  }
  await eventually(settled(router));
  return { router, single, exporter, hook };
}

test("the names are the engine's", () => {
  const source = readFileSync(new URL("../../../crates/liter-llm/src/telemetry/names.rs", import.meta.url), "utf8");
  const [, body] = /pub mod metric \{\n(.*?)\n\}/s.exec(source);
  const engine = [...body.matchAll(/^ {4}pub const [A-Z_]+: &str = "([a-z_]+)";/gm)].map(([, name]) => name);
  assert.ok(engine.length > 20);
  assert.deepEqual(sorted(METRICS.map(spelled), ONLY_THE_METER), sorted(engine, ONLY_PROMETHEUS));
});

test("both have the same series", async () => {
  const { meterProvider, collect } = host();
  const { router, exporter } = await played({ meterProvider });
  const here = await collect();
  const there = read(exporter.text());
  assert.deepEqual(sorted(Object.keys(here.kinds), ONLY_THE_METER), METRICS.map(spelled).sort());
  assert.deepEqual(
    sorted(Object.keys(there.kinds), ONLY_PROMETHEUS).map((name) => [name, there.kinds[name]]),
    sorted(Object.keys(here.kinds), ONLY_THE_METER).map((name) => [name, here.kinds[name]]),
  );
  const near = (one, other) => Math.abs(one - other) <= 1e-6 * Math.max(1, Math.abs(one));
  for (const [name, series] of Object.entries(here.series)) {
    assert.deepEqual(Object.keys(series).sort(), Object.keys(there.series[name]).sort(), name);
    for (const [labels, value] of Object.entries(series)) {
      const theirs = there.series[name][labels];
      const told = `${name} ${labels}: ${JSON.stringify(value)} ${JSON.stringify(theirs)}`;
      if (typeof value === "number") assert.ok(near(value, theirs), told);
      else assert.ok(near(value.sum, theirs.sum), told);
      assert.deepEqual(value.buckets, theirs.buckets, told);
    }
  }
  // What there is to say was said.
  const { series } = here;
  const arms = Object.keys(series.liter_llm_canary_calls).map((key) => labelsOf(key).liter_llm_arm);
  assert.deepEqual([...new Set(arms)].sort(), ["canary", "rest"]);
  assert.deepEqual(series.liter_llm_canary_rolled_back, { [of({ liter_llm_deployment: "new" })]: 1 });
  const { sent, errors, dropped } = router.mirror();
  const copies = Object.entries(series.liter_llm_mirror_calls).map(([key, count]) => [
    labelsOf(key).liter_llm_outcome,
    count,
  ]);
  assert.deepEqual(Object.fromEntries(copies), { answered: sent - errors, failed: errors, dropped });
  assert.ok(errors > 0 && sent > errors);
  for (const name of ["liter_llm_records_dropped", "liter_llm_labels_folded", "liter_llm_cache_hits"]) {
    assert.ok(series[name]["[]"] > 0, name);
  }
});

test("what was counted stays when a client is closed", async () => {
  const { meterProvider, collect } = host();
  const { router, single, hook } = await played({ meterProvider });
  const { sent, dropped } = router.mirror();
  const records = hook.dropped;
  await router.close();
  await single.close();
  for (let round = 0; round < 2; round += 1) {
    const { kinds, series } = await collect();
    const copies = Object.values(series.liter_llm_mirror_calls).reduce((sum, count) => sum + count, 0);
    assert.equal(copies, sent + dropped);
    assert.deepEqual(series.liter_llm_records_dropped, { "[]": records });
    // Gauges tell of what is there: nothing is.
    assert.ok(!("liter_llm_canary_rolled_back" in kinds) && !("liter_llm_circuit_state" in kinds));
  }
});

test("counts of two clients add up", async () => {
  const { meterProvider, collect } = host();
  const mirrored = () =>
    new ProviderRouter(
      ["old", "copy"].map((name) => sim.config("openai", { model: name, name })),
      { mirror: { to: "copy", percent: 100 }, telemetry: { meterProvider } },
    );
  const answered = of({ liter_llm_deployment: "copy", liter_llm_outcome: "answered" });
  const count = async () => (await collect()).series.liter_llm_mirror_calls[answered];
  const [first, second] = [mirrored(), mirrored()];
  for (const router of [first, second]) {
    // Calls of a client over it are its own.
    await new LiterLLM(router).generate("Hello", { maxTokens: 3 });
    await eventually(settled(router));
  }
  assert.equal(await count(), 2);
  await first.close();
  assert.equal(await count(), 2);
  await second.generate("Hello", { maxTokens: 3 });
  await eventually(settled(second));
  await second.close();
  assert.equal(await count(), 3);
});

test("clients and callers without end are a bounded number of series", async () => {
  const { meterProvider, collect } = host();
  const telemetry = { meterProvider };
  for (let number = 0; number < 300; number += 1) {
    const client = new LiterLLM(sim.config("openai", { model: `model-${number}` }), { telemetry });
    await client.generate("Hello", { maxTokens: 1 });
    await client.close();
  }
  const router = new ProviderRouter([sim.config("openai", { price: { input: 1, output: 1 } })], {
    budget: { usd: 1, per: "day", scope: "key" },
    telemetry,
  });
  for (let number = 0; number < 100; number += 1) {
    await router.generate("Hello", { maxTokens: 1, route: { key: `user-${number}` } });
  }
  const { series } = await collect();
  for (const metric of [names.OPERATION_DURATION, names.REQUEST_LATENCY_MS, names.ATTEMPT_DURATION]) {
    assert.ok(Object.keys(series[spelled(metric)]).length <= 257, metric.name);
  }
  const budgets = Object.keys(series.liter_llm_budget_spent_usd);
  assert.ok(budgets.length > 60 && budgets.length <= 65, `${budgets.length}`);
  assert.ok(budgets.includes(of({ liter_llm_budget: "other" })));
});
