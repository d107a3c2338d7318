// The page at /docs in Chromium, as a person uses it: first with the keyboard alone, then by sending
// every operation. Prints what was seen as JSON.
import { chromium } from "playwright-core";

const [program, url, width, colorScheme, picture] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: program,
  args: [
    ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
    ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
  ],
});
const context = await browser.newContext({
  viewport: { width: Number(width), height: 800 }, colorScheme,
  permissions: ["clipboard-read", "clipboard-write"],
});
const page = await context.newPage();
const requested = [];
const complaints = [];
page.on("request", (request) => requested.push(request.url()));
page.on("pageerror", (error) => complaints.push(error.message));
page.on("console", (message) => {
  // An answer such as 410 is one of those that are asked for here.
  if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) {
    complaints.push(message.text());
  }
});

const overflow = () => page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
const focused = () => page.evaluate(() => {
  const { tagName, textContent, value } = document.activeElement;
  const { outlineStyle } = getComputedStyle(document.activeElement);
  return { tagName, text: textContent.trim(), value, seen: outlineStyle !== "none" };
});
async function tabTo(text) {
  for (let pressed = 0; pressed < 50; pressed += 1) {
    await page.keyboard.press("Tab");
    const { tagName, ...element } = await focused();
    if (element.text === text || tagName === text) return element;
  }
  throw new Error(`Tab does not lead to ${text}`);
}

await page.goto(url);
const first = page.locator("main details").first();
await first.waitFor();
const seen = { overflow: [await overflow()] };

seen.person = await tabTo("VIEWER");
await page.keyboard.press("Enter");
seen.pressed = await page.locator("button[aria-pressed=true]").allTextContents();
await tabTo("SUMMARY");
seen.example = await tabTo("INPUT");
await page.keyboard.press("Enter");
await first.locator(".status").waitFor();
seen.status = await first.locator(".status").textContent();
seen.answer = JSON.parse(await first.locator("pre").last().textContent());
await tabTo("Copy as curl");
await page.keyboard.press("Enter");
await first.getByText("COPIED").waitFor();
seen.shown = await first.locator("pre").textContent();
seen.copied = await page.evaluate(() => navigator.clipboard.readText());
if (picture) await page.screenshot({ path: `${picture}.png` });

await page.getByRole("button", { name: "PLATFORM_ADMIN" }).click();
seen.statuses = {};
for (const each of await page.locator("main > details").all()) {
  await each.evaluate((details) => details.setAttribute("open", ""));
  await each.locator(".answers").evaluate((details) => details.setAttribute("open", ""));
  await each.getByRole("button", { name: "Send" }).click();
  await each.locator(".status").waitFor();
  const [name, status] = await Promise.all(
    [each.locator("summary > code").allTextContents(), each.locator(".status").textContent()],
  );
  seen.statuses[name.join(" ")] = parseInt(status, 10);
}
seen.overflow.push(await overflow());
if (picture) {
  await page.locator("main > details").nth(3).screenshot({ path: `${picture}-sent.png` });
}
await browser.close();
console.log(JSON.stringify({ ...seen, requested, complaints }));
