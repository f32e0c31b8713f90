// The configuration file: the table that every language reads, where it is found, reload, watch.
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: that is how files name variables.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { inspect, promisify } from "node:util";
import { Worker } from "node:worker_threads";
import {
  CallCancelledError,
  ConfigError,
  InternalServerError,
  LiterLLM,
  LiterLlmError,
  MissingKeyError,
  ProviderRouter,
} from "liter-llm";
import { eventually, HUNG, Simulator } from "./simulator.mjs";

const { load } = createRequire(import.meta.url)("../dist/config-file.js");
const { cases } = JSON.parse(readFileSync(new URL("../../../tests/config_files.json", import.meta.url), "utf8"));
const KEY = "sk-canary-0123456789";
/** Reloads under load, of which one in ten is of a file that cannot work; and calls a second. */
const RELOADS = process.env.LITER_LLM_SOAK === "1" ? 200 : 40;
const CALLS_A_RELOAD = 10;

let sim;
let folder;
let path;
const environment = { ...process.env };
const home = process.cwd();

before(async () => {
  sim = await Simulator.start();
});
after(() => sim.stop());
beforeEach(async () => {
  await sim.reset();
  for (const name of Object.keys(process.env)) {
    if (/^(OPENAI_|AZURE_|LITER_LLM_CONFIG)/.test(name)) delete process.env[name];
  }
  folder = realpathSync(mkdtempSync(join(tmpdir(), "liter-llm-")));
  path = join(folder, "liter-llm.toml");
  process.chdir(folder);
});
afterEach(() => {
  for (const name of Object.keys(process.env)) if (!(name in environment)) delete process.env[name];
  Object.assign(process.env, environment);
  process.chdir(home);
  rmSync(folder, { recursive: true });
});

const write = (text, file = path) => {
  writeFileSync(file, text);
  return file;
};
const one = (more = "", model = "m") =>
  `[deployment]\nprovider = "openai/${model}"\nbase_url = "${sim.baseUrl("openai")}"\nmax_retries = 0\n${more}`;
const several = (names, rules = "") =>
  `[router]\npolicy = "priority"\n${rules}\n${names
    .map(
      (name) =>
        `[[deployments]]\nname = "${name}"\nprovider = "openai/${name}"\nbase_url = "${sim.baseUrl("openai")}"\n` +
        'api_key = "k"\nmax_retries = 0\nprice = { input = 1, output = 1 }\n',
    )
    .join("")}`;
const keys = async () => (await sim.requests()).map(({ headers }) => new Headers(headers).get("authorization"));
const thrown = (act) => {
  try {
    act();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
};

// ------------------------------------------------------------------------------------------- the table of files

test("the table is whole", () => {
  assert.equal(cases.length, 53);
  assert.ok(cases.every(({ document, error }) => (document === undefined) !== (error === undefined)));
});

for (const { name, toml, env = {}, found = false, document, error: expected } of cases) {
  test(`a file: ${name}`, () => {
    Object.assign(process.env, env);
    write(toml);
    const named = found ? undefined : path;
    if (document !== undefined) {
      assert.deepEqual(load(named).document, JSON.parse(JSON.stringify(document).replace("<folder>", folder)));
      LiterLLM.fromConfig(named).close();
      return;
    }
    const error = thrown(() => LiterLLM.fromConfig(named));
    assert.ok(error instanceof ConfigError || error instanceof MissingKeyError, error.stack);
    assert.ok(error.message.startsWith(`${path}:${expected.line}: `), error.message);
    for (const words of expected.says) assert.ok(error.message.includes(words), error.message);
    for (const value of Object.values(env)) if (value.length > 5) assert.ok(!inspect(error).includes(value));
  });
}

test("what only JavaScript has to look out for", () => {
  write(`${one('api_key = "k"\n')}headers = { __proto__ = "a", constructor = "b" }\n`);
  const { headers } = load().document.deployment;
  assert.deepEqual(Object.entries(headers), [
    ["__proto__", "a"],
    ["constructor", "b"],
  ]);
  write(`${one('api_key = "k"\n')}extra = { seed = 9007199254740993 }\n`);
  assert.match(thrown(() => load()).message, /:6: `deployment\.extra\.seed`: is a whole number larger/);
  write(`${one('api_key = "k"\n')}connect_timeout_seconds = 0\n`);
  assert.equal(thrown(() => LiterLLM.fromConfig(path)).param.endsWith("connect_timeout"), true);
  writeFileSync(path, Buffer.from([0x61, 0xff, 0xfe]));
  assert.match(thrown(() => load(path)).message, /is not UTF-8 text$/);
  assert.match(thrown(() => load(folder)).message, /cannot be read: /);
  assert.match(
    thrown(() => load(join(folder, "none.toml"))).message,
    /none\.toml: cannot be read: no such file or directory$/,
  );
  assert.throws(() => LiterLLM.fromConfig(3), /`path`: must be a text or a URL/);
  assert.throws(() => LiterLLM.fromConfig(path, { wacth: true }), /`wacth` is unknown; did you mean `watch`/);
});

test("no file shows a secret", () => {
  process.env.CANARY = KEY;
  for (const options of [
    'provider = "${CANARY}"',
    'provider = "openai"\nmodel = "m"\napi = "${CANARY}"',
    'provider = "openai"\nmodel = "m"\ntimeout_seconds = "${CANARY}"',
    'provider = "openai"\nmodel = "m"\nproxy = "${CANARY}"',
    'provider = "openai"\nmodel = "m"\nbase_url = "${CANARY}"',
    `provider = "openai"\nmodel = "m"\napi_key = ["${KEY}"]`,
    `provider = "openai"\nmodel = "m"\napi_key = "${KEY} x\\n"`,
    `provider = "openai"\nmodel = "m"\nrpm = "${KEY}"`,
  ]) {
    write(`[deployment]\n${options}\n`);
    const error = thrown(() => LiterLLM.fromConfig(path));
    assert.ok(error instanceof LiterLlmError, options);
    const said = `${inspect(error, { depth: 9, showHidden: true })} ${JSON.stringify(error)} ${error.stack}`;
    assert.ok(!said.includes(KEY), options);
  }
  write('[deployment]\nprovider = "openai/m"\napi_key = "${CANARY}"\n');
  const client = LiterLLM.fromConfig(path);
  const shown = [client, client.config, load(path), client.describe()].map(
    (thing) => inspect(thing, { depth: 9, showHidden: true }) + JSON.stringify(thing),
  );
  assert.ok(!shown.join().includes(KEY));
  assert.ok(shown[0].startsWith("LiterLLM {") && shown[0].includes(path) && shown[0].includes("provider: 'openai'"));
});

// -------------------------------------------------------------------------------------------- where the file is

test("it is found upwards unless it is named", async () => {
  const inner = join(folder, "a", "b");
  mkdirSync(inner, { recursive: true });
  process.chdir(inner);
  assert.match(thrown(() => LiterLLM.fromConfig()).message, /there is no liter-llm\.toml .*LITER_LLM_CONFIG/);
  write(one('api_key = "k"\n', "outer"));
  const other = write(one('api_key = "k"\n', "named"), join(folder, "other"));
  await LiterLLM.fromConfig().generate("hi");
  process.env.LITER_LLM_CONFIG = other;
  await LiterLLM.fromConfig().generate("hi");
  await LiterLLM.fromConfig(null).generate("hi");
  await LiterLLM.fromConfig(path).generate("hi");
  await ProviderRouter.fromConfig(pathToFileURL(path)).generate("hi");
  const models = (await sim.requests()).map(({ body }) => body.model);
  assert.deepEqual(models, ["outer", "named", "named", "outer", "outer"]);
});

test("a found file does not send the environment's key elsewhere; a named one may", async () => {
  process.env.OPENAI_API_KEY = KEY;
  write(one());
  const error = thrown(() => LiterLLM.fromConfig());
  assert.ok(error.message.startsWith(`${path}:3: `) && !error.message.includes(KEY), error.message);
  await LiterLLM.fromConfig(path).generate("hi");
  write(one('api_key = "${OPENAI_API_KEY}"\n'));
  await LiterLLM.fromConfig().generate("hi");
  assert.deepEqual(await keys(), [`Bearer ${KEY}`, `Bearer ${KEY}`]);
  // A row that names its own variable, and one that takes the place of a known row.
  const row = `[providers.mine]\nadapter = "openai_chat"\nbase_url = "${sim.baseUrl("openai")}"\n`;
  process.env.MY_KEY = "sk-mine";
  write(`${row}api_key_env = ["MY_KEY"]\n[deployment]\nprovider = "mine/m"\n`);
  await LiterLLM.fromConfig().generate("hi");
  assert.equal((await keys()).at(-1), "Bearer sk-mine");
  write(`${row.replace("mine", "openai")}[deployment]\nprovider = "openai/m"\n`);
  assert.throws(() => LiterLLM.fromConfig(), MissingKeyError);
  write(`[deployment]\nprovider = "azure/m"\nbase_url = "${sim.baseUrl("openai")}"\n`);
  assert.throws(() => LiterLLM.fromConfig(), /AZURE_OPENAI_API_KEY/);
});

test("a found file must be ours", { skip: process.geteuid === undefined }, () => {
  write(one('api_key = "k"\n'));
  chmodSync(path, 0o666);
  assert.throws(() => LiterLLM.fromConfig(), /every user of this machine may write it/);
  LiterLLM.fromConfig(path);
  chmodSync(path, 0o644);
  if (process.geteuid() !== 0) return;
  chownSync(path, 12345, 0);
  assert.throws(() => LiterLLM.fromConfig(), /it belongs to another user/);
});

// ------------------------------------------------------------------------------------------------------- reload

test("reload keeps what is known; what cannot work changes nothing", async () => {
  write(one('api_key = "k1"\n'));
  const client = LiterLLM.fromConfig(path);
  assert.equal(client.config.model, "m");
  await client.generate("hi");
  await sim.rules({ match: {}, fault: { status: 500 } });
  for (let turn = 0; turn < 3; turn += 1) await assert.rejects(client.generate("hi"), InternalServerError);
  await sim.rules();
  write(one('api_key = "k1"\ntimeout_seconds = 7\ncircuit = { open_time_seconds = 20 }\n'));
  client.reload();
  assert.equal(client.state()[0].failuresInRow, 3);
  assert.equal(client.config.toJSON().timeout, 7);
  assert.deepEqual(client.config.toJSON().circuit, { openTime: 20 });

  write(one('api_key = "k2"\nmax_retires = 1\n'));
  const error = thrown(() => client.reload());
  assert.match(error.message, /liter-llm\.toml:6: .*max_retries/);
  assert.equal(client.configError, error);
  assert.equal(client.config.toJSON().timeout, 7);
  await client.generate("hi");
  write(one('api_key = "${NO_SUCH_KEY}"\n'));
  assert.throws(() => client.reload(), /liter-llm\.toml:5: `deployment\.api_key`: .*`NO_SUCH_KEY` is not set/);
  write(one('api_key = "k3"\n'));
  client.reload();
  assert.equal(client.configError, undefined);
  await client.generate("hi");
  assert.deepEqual((await keys()).slice(-2), ["Bearer k1", "Bearer k3"]);

  await client.close();
  assert.throws(() => client.reload(), CallCancelledError);
  assert.throws(() => sim.client("openai").reload(), /not made from a file/);
  assert.equal(sim.client("openai").configError, undefined);
});

test("calls in flight end under the old file", async () => {
  write(one('api_key = "old"\n').replace("max_retries = 0", "max_retries = 1"));
  const client = LiterLLM.fromConfig(path);
  await sim.rules({ match: { nth: 1 }, fault: { status: 503, headers: { "retry-after": "1" } } });
  const call = client.generate("hi");
  await eventually(async () => (await sim.requests()).length === 1);
  write(one('api_key = "new"\n'));
  client.reload();
  await client.generate("hi");
  await call;
  assert.deepEqual(await keys(), ["Bearer old", "Bearer new", "Bearer old"]);
});

test("all clients of a router see the new file, and so does a deployment of it", async () => {
  const router = ProviderRouter.fromConfig(write(several(["old", "both"])));
  const client = new LiterLLM(router);
  const old = await router.select("hi");
  const both = router.deployments[1];
  assert.equal(both.toJSON().apiKey, "***");
  const from = async (door) => (await door.generate("hi", { maxTokens: 5 })).attempts[0].deployment;
  assert.deepEqual(await Promise.all([router, client, old].map(from)), ["old", "old", "old"]);
  const spent = (await router.spend()).deployments.find(({ name }) => name === "old").calls;
  assert.equal(spent, 3);

  write(several(["both", "old"], "budget = { usd = 5, per = 'day' }\ncanary = { model = 'old', percent = 0 }\n"));
  router.reload();
  assert.deepEqual(await Promise.all([router, client, old].map(from)), ["both", "both", "old"]);
  assert.equal((await client.stream("hi").untilDone()).attempts[0].deployment, "both");
  assert.equal(router.statistics().deployments.find(({ deployment }) => deployment === "old").calls, 4);
  assert.equal((await router.spend()).budgets.length, 1);
  assert.equal(router.canary().deployment, "old");

  write(several(["both"]));
  router.reload();
  await assert.rejects(old.generate("hi"), /none is named `old`/);
  assert.throws(() => client.reload(), /reload the router/);
  assert.deepEqual(
    router.deployments.map(({ name }) => name),
    ["both"],
  );
  await client.close();
  assert.equal(await from(router), "both");
  await router.close();
  assert.throws(() => router.reload(), CallCancelledError);
});

test("reload under load: no error, no call of two versions", async () => {
  const text = (version) =>
    `[router]\npolicy = "round_robin"\n${["a", "b"]
      .map(
        (name) =>
          `[[deployments]]\nname = "${name}"\nprovider = "openai/${name}"\nbase_url = "${sim.baseUrl("openai")}"\n` +
          `api_key = "sk-${version}"\norganization = "org-${version}"\nmax_retries = 0\n` +
          `headers = { x-version = "${version}" }\nextra = { version = ${version} }\n`,
      )
      .join("")}`;
  const breaks = [
    (good) => good.replace("organization", "organisation"),
    (good) => good.replace("openai/b", "opnai/b"),
    (good) => `${good}[[deployments]\n`,
    (good) => good.replace('"sk-', '"${NO_SUCH_KEY}sk-'),
  ];
  const client = LiterLLM.fromConfig(write(text(0)));
  const calls = [];
  let refused = 0;
  for (let version = 1; version <= RELOADS; version += 1) {
    const broken = version % 10 === 0;
    write(broken ? breaks[(version / 10) % 4](text(version)) : text(version));
    try {
      client.reload();
    } catch (error) {
      assert.ok(broken && error instanceof ConfigError, error.stack);
      refused += 1;
    }
    for (let made = 0; made < CALLS_A_RELOAD; made += 1) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      // Nobody waits for it: the last one is under way when the file is read again.
      calls.push(client.generate(`call ${calls.length}`));
    }
  }
  await Promise.all(calls);
  const requests = await sim.requests();
  const seen = new Set();
  for (const { headers, body } of requests) {
    const of = new Headers(headers);
    const versions = new Set([
      of.get("x-version"),
      of.get("authorization").replace("Bearer sk-", ""),
      of.get("openai-organization").replace("org-", ""),
      String(body.version),
    ]);
    assert.equal(versions.size, 1, [...versions].join());
    seen.add([...versions][0]);
  }
  assert.equal(refused, RELOADS / 10);
  assert.equal(requests.length, calls.length);
  assert.equal(calls.length, RELOADS * CALLS_A_RELOAD);
  assert.equal(seen.size, RELOADS - refused);
});

test("workers that reload may be terminated at any moment", async () => {
  write(several(["m"]));
  const program = `
    const { parentPort, workerData } = require("node:worker_threads");
    const { LiterLLM } = require(workerData.library);
    const client = LiterLLM.fromConfig(workerData.path, { watch: true });
    const again = () => {
      client.generate("hi").catch(() => {});
      client.reload();
      parentPort.postMessage("reloaded");
      setImmediate(again);
    };
    again();`;
  const library = createRequire(import.meta.url).resolve("liter-llm");
  for (let turn = 0; turn < 20; turn += 1) {
    const worker = new Worker(program, { eval: true, workerData: { library, path } });
    await once(worker, "message");
    await new Promise((resolve) => setTimeout(resolve, turn));
    await worker.terminate();
  }
});

// -------------------------------------------------------------------------------------------------------- watch

test("a watched file is reloaded; one that cannot work is told once", async () => {
  const warnings = [];
  const onWarning = (warning) => warnings.push(warning);
  process.on("warning", onWarning);
  try {
    const router = ProviderRouter.fromConfig(write(several(["m"])), { watch: true });
    const client = new LiterLLM(router);
    write(several(["m"]).replace('"k"', '"k2"'));
    await eventually(async () => {
      await client.generate("hi");
      return (await keys()).at(-1) === "Bearer k2";
    });
    write(several(["m"], "polciy = 'cost'\n"));
    const error = await eventually(() => router.configError);
    assert.match(error.message, /liter-llm\.toml:3: `router\.polciy` is unknown; did you mean `policy`/);
    await new Promise((resolve) => setTimeout(resolve, 1300));
    assert.deepEqual(
      warnings.map(({ name, message }) => [name, message]),
      [["LiterLlmWarning", `the configuration stays as it was: ${error.message}`]],
    );
    rmSync(path);
    await eventually(() => /cannot be read/.test(router.configError?.message));
    await client.generate("hi");
    assert.equal((await keys()).at(-1), "Bearer k2");
    write(several(["m"]).replace('"k"', '"k3"'));
    await eventually(() => router.configError === undefined);
    await client.generate("hi");
    assert.equal((await keys()).at(-1), "Bearer k3");
    await router.close();
    write("broken");
    await new Promise((resolve) => setTimeout(resolve, 1000));
    assert.equal(router.configError, undefined);
    assert.equal(warnings.length, 2);
  } finally {
    process.off("warning", onWarning);
  }
});

test("a forgotten client is not watched, and watching keeps no process alive", async () => {
  write(several(["m"]));
  const program = `
    import { LiterLLM } from "liter-llm";
    const timers = () => process.getActiveResourcesInfo().filter((one) => one === "Timeout").length;
    let client = LiterLLM.fromConfig(process.argv[1], { watch: true });
    await client.generate("hi");
    const reference = new WeakRef(client);
    client = undefined;
    for (let turn = 0; turn < 100 && reference.deref(); turn += 1) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      gc();
    }
    console.log(reference.deref() === undefined);
    globalThis.kept = LiterLLM.fromConfig(process.argv[1], { watch: true });
    console.log((await kept.generate("hi")).text.length > 0);
    const done = performance.now();
    process.on("exit", () => console.error((performance.now() - done).toFixed(0)));`;
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    ["--expose-gc", "--input-type=module", "-e", program, path],
    { cwd: fileURLToPath(new URL("../", import.meta.url)), timeout: HUNG },
  );
  assert.equal(stdout, "true\ntrue\n");
  assert.match(stderr, /^\d+\n$/);
  assert.ok(Number(stderr) < 10_000, `it ended ${stderr} ms after its last call`);
});
