// Metrics for Prometheus: as text, and as a handler for `node:http`.

import type { IncomingMessage, ServerResponse } from "node:http";

import { begin, call, connect, keep, made } from "./calls";
import { Callable } from "./engine";
import { ConfigError } from "./errors";
import { type Kept, native } from "./native";

const OPENMETRICS = "application/openmetrics-text";
const READING = "GET, HEAD";

/**
 * Metrics of one or more clients: of the calls that begin from now on, and of how the clients stand. Nothing is global:
 * each exporter has metrics of its own. A client over a router has that router's metrics; giving both counts each call once.
 *
 * @throws {ConfigError} Something else than clients and routers was given.
 * @throws {CallCancelledError} A client is closed.
 */
export class PrometheusExporter implements Disposable {
  readonly #metrics: Kept<"metrics">;
  readonly #plain: boolean;

  /** `plain`: whether the text is always in Prometheus' own form (0.0.4). Over HTTP, who does not ask for OpenMetrics gets that anyhow. */
  constructor(clients: Callable | Iterable<Callable>, options: { readonly plain?: boolean } = {}) {
    connect();
    this.#metrics = keep(this, made(native.metrics()));
    this.#plain = options.plain ?? false;
    for (const client of clients instanceof Callable ? [clients] : clients) this.add(client);
  }

  /** Counts this client's calls too. One that is counted already stays so. */
  add(client: Callable): void {
    if (!(client instanceof Callable)) {
      throw new ConfigError("`clients`: must be a LiterLLM or a ProviderRouter, or a list of them", {
        param: "clients",
      });
    }
    client.engine.observeWith(this.#metrics);
  }

  /** The metrics. With budgets in a file it reads that, which may take a few milliseconds. */
  text(): string {
    return page(begin(native.scrape(this.#metrics, this.#plain ? undefined : OPENMETRICS))).text;
  }

  /** The content type of `text()`. */
  get contentType(): string {
    return this.#plain
      ? "text/plain; version=0.0.4; charset=utf-8"
      : "application/openmetrics-text; version=1.0.0; charset=utf-8";
  }

  /** Answers a request for the metrics: `createServer(exporter.handler)`, or `app.get("/metrics", exporter.handler)`. */
  readonly handler = (request: IncomingMessage, response: ServerResponse): void => {
    if (request.method !== "GET" && request.method !== "HEAD") {
      response
        .writeHead(405, { Allow: READING, "Content-Type": "text/plain; charset=utf-8" })
        .end("only GET and HEAD\n");
      return;
    }
    const accept = this.#plain ? undefined : request.headers.accept;
    // A budget's file is read on another thread.
    call(this, (number) => native.scrapeLater(this.#metrics, number, accept), page).then(
      ({ type, text }) => {
        const headers = { "Content-Type": type, "Content-Length": Buffer.byteLength(text), Vary: "Accept" };
        response.writeHead(200, headers).end(request.method === "HEAD" ? undefined : text);
      },
      (error: Error) => response.writeHead(500, { "Content-Type": "text/plain" }).end(`${error.name}\n`),
    );
  };

  /** Counts no more calls. What was counted can still be read with `text()`. */
  close(): void {
    native.closeMetrics(this.#metrics);
  }

  /** For `using`. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** What the native library gives: the content type, a line feed, and the text. */
function page(given: string): { readonly type: string; readonly text: string } {
  const end = given.indexOf("\n");
  return { type: given.slice(0, end), text: given.slice(end + 1) };
}
