// node look_at_page.mjs CHROMIUM ADDRESS [TEXT...]: prints what the page says as JSON.
// playwright-core comes from the working directory.
import { createRequire } from "node:module";

const { chromium } = createRequire(`${process.cwd()}/`)("playwright-core");
const [executablePath, address, ...texts] = process.argv.slice(2);
const quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
const offline = ["--disable-background-networking", "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath, args: [...quiet, ...offline] });
const page = await browser.newPage();

const requested = [], errors = [];
page.on("request", (request) => requested.push(request.url()));
page.on("pageerror", (error) => errors.push(error.message));

await page.goto(address);
await page.waitForSelector("body[data-done]", { timeout: 60_000, state: "attached" });
const said = (id) => page.locator(`#${id}`).innerText();
const seen = {
  loading: await said("loading"),
  parity: await said("parity"),
  problems: await page.locator("#problems li").allInnerTexts(),
};
if (texts.length) {
  await page.fill("#texts", texts.join("\n"));
  await page.click("#predict");
  await page.waitForFunction((count) => document.querySelectorAll("#predictions tr").length === count, texts.length);
  seen.labels = await page.locator("#predictions td:nth-child(2)").allInnerTexts();
}
if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT, fullPage: true });
await browser.close();
console.log(JSON.stringify({ ...seen, requested: requested.filter((url) => url.startsWith("http")), errors }));
