"""The demonstration's script: one exchange on real weather data, each party in its own process with its own key."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ledger.billing.statements import SHANGHAI
from ledger.chain.client import Chain
from ledger.chain.deploy import Deployment
from ledger.cli.app import App, short
from ledger.cli.processes import Party, Processes
from ledger.core.errors import NotFound, VerificationFailed
from ledger.core.money import UY_PER_FEN, format_fen, format_yuan

DATA = Path("node_modules/vega-datasets/data")
HOURLY, DAILY = "seattle-weather-hourly-normals.csv", "seattle-weather.csv"
SOURCE = "NOAA National Centers for Environmental Information, via vega-datasets 3.2.1; U.S. Government work"
DOWNLOADS = 12
WIDE = 150  # columns

PARTIES = {
    "operator": "空间运营方",
    "provider": "数据提供方",
    "consumer": "数据使用方",
    "holder": "数据持有单位（权利人）",
    "relayer": "第三方代提交",
}


def plain(text: str) -> str:
    """A summary with its ids shortened."""
    return re.sub(r"0x[0-9a-f]{24,}", lambda found: short(found.group()), text)


class Demo:
    """The exchange's script: what each party types, and what is shown of it."""

    def __init__(self, app: App, folder: Path, uses: int) -> None:
        self.app, self.folder, self.uses = app, folder, uses
        self.parties: dict[str, Party] = {}
        self.address: dict[str, str] = {}
        self.sent: list[dict[str, Any]] = []
        self.began = time.perf_counter()
        if not app.console.is_terminal:
            app.console.width = WIDE  # a pipe has no width of its own

    # -------------------------------------------------------------------------------------------- showing

    def step(self, zh: str, en: str) -> None:
        self.app.console.print()
        self.app.console.rule(f"[bold]{zh}[/] · {en}", align="left", style="cyan")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        self.app.table("", columns, rows)

    def writes(self, *done: tuple[str, dict[str, Any]]) -> None:
        """A table of transactions: who did what, in which transaction, for how much gas."""
        for who, d in done:
            self.sent.append(
                {"who": who} | {k: d[k] for k in ("operation", "summary", "transaction", "block", "gasUsed")}
            )
        rows = [
            (
                who,
                plain(f"{d['summary']['zh']}\n{d['summary']['en']}"),
                self.hash(d["transaction"]),
                f"{d['gasUsed']:,}",
            )
            for who, d in done
        ]
        self.table(("谁 who", "做了什么 what", "交易 transaction", "gas"), rows)

    def hash(self, text: str) -> str:
        """A whole hash where there is room for it; all of them are in transactions.json."""
        return text if self.app.console.width >= WIDE else short(text)

    def waiting(self, text: str) -> Progress:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        bar = Progress(*columns, console=self.app.console, transient=True)
        bar.add_task(text, total=None)
        return bar

    # -------------------------------------------------------------------------------------------- running

    def run(self) -> None:
        keep = self.folder / "audit-bundle"
        with Processes(self.folder / "logs") as processes:
            self.start(processes)
            self.space()
            self.products()
            self.prices()
            self.escrowed()
            self.use_and_settle(processes)
            self.shares()
            self.revoke()
            self.invoiced()
            self.books()
            self.finish()
            self.export(keep)
            self.step("停止所有进程", "Everything stops: chain, database, servers, parties")
        self.verify(keep)
        record = self.folder / "transactions.json"
        record.write_text(json.dumps(self.sent, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        seconds = time.perf_counter() - self.began
        self.app.console.print(
            f"\n[bold green]完成 done[/] in {seconds:.1f} s · audit bundle {keep} · transactions {record}"
        )

    def start(self, processes: Processes) -> None:
        self.step("启动本地链与各方", "A local chain, and each party with its own key and process")
        rpc = processes.anvil(self.folder / "chain.json")
        self.chain = Chain(rpc)
        self.rpc = rpc
        with self.waiting("各方生成加密钱包 · parties make encrypted wallets"):
            for name in PARTIES:
                home = self.folder / name
                home.mkdir()
                password = home / "password"
                with os.fdopen(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                    file.write(secrets.token_urlsafe(24) + "\n")
                options = ["--home", str(home), "--rpc", rpc, "--wallet", str(home / "wallet.json")]
                self.parties[name] = processes.party(name, [*options, "--password-file", str(password)])
                self.parties[name].say("wallet", "new", home / "wallet.json")
            for name, party in self.parties.items():
                self.address[name] = party.hear()["address"]
                # A local chain's own faucet: native coin for gas. No key is involved.
                self.chain.rpc("anvil_setBalance", self.address[name], hex(10**18))
        self.table(("参与方", "party", "wallet"), ((zh, name, self.address[name]) for name, zh in PARTIES.items()))

        self.step("部署合约", "Deploy the contracts")
        deployed = self.parties["operator"]("deploy", "--demo-token")
        self.deployment = Deployment.from_json({k: deployed[k] for k in deployed if k not in ("file", "transactions")})
        for name in PARTIES:
            if name != "operator":
                shutil.copy(self.folder / "operator" / "deployment.json", self.folder / name)
        rows = [
            (n, a, self.hash(deployed["transactions"][n]["transaction"]), f"{deployed['transactions'][n]['gasUsed']:,}")
            for n, a in deployed["contracts"].items()
        ]
        self.table(("合约 contract", "地址 address", "交易 transaction", "gas"), rows)

        served = str(self.folder / "provider")
        url = processes.server(
            "api", [sys.executable, "-m", "api", "--home", served, "--rpc", rpc, "--port", "0", "--json"]
        )
        for party in self.parties.values():
            party("connect", url)
        self.app.console.print(f"镜像与接口 mirror and API at {url}/docs")

    def space(self) -> None:
        self.step("建立空间，准入参与方", "Create the space, admit the participants")
        rules = self.folder / "operator" / "rules.md"
        rules.write_text("# 气象数据空间规则（演示）\n\nWeather data space, demonstration rules.\n")
        operator = self.parties["operator"]
        created = operator("space", "create", "--policy", rules)
        self.space_id = created["space"]
        roles = {"provider": ["provider"], "consumer": ["consumer"], "holder": ["rights_holder"]}
        done = [("operator", created)]
        for name, wanted in roles.items():
            given = [part for role in wanted for part in ("--role", role)]
            admitted = operator(
                "participant", "admit", "--space", self.space_id, "--wallet-address", self.address[name], *given
            )
            done.append(("operator", admitted))
        self.writes(*done)

    def products(self) -> None:
        self.step("登记产品，按内容摘要发布版本", "Register products, publish versions by content digest")
        provider, home = self.parties["provider"], self.folder / "provider"
        self.version: dict[str, str] = {}
        self.product: dict[str, str] = {}
        # The policy says, among other things, what each meter counts: the terms pin its digest.
        meters = {"feed": ["calls", "rows"], "file": ["calls"]}
        self.policy = {key: home / f"{key}.policy.json" for key in meters}
        for key, path in self.policy.items():
            path.write_text(
                json.dumps({"@type": "Set", "permission": [{"action": "use"}], "meters": meters[key]}) + "\n"
            )
        done, digests = [], []
        names = {
            HOURLY: ("feed", "西雅图逐时气象（接口）", "Seattle hourly weather normals, API feed"),
            DAILY: ("file", "西雅图逐日气象（整库下载）", "Seattle daily weather, bulk file"),
        }
        for file, (key, zh, en) in names.items():
            if not (DATA / file).is_file():
                raise NotFound(f"{DATA / file} is missing; run `make setup` first")
            metadata = home / f"{key}.metadata.json"
            facts = {"name": {"zh": zh, "en": en}, "source": SOURCE, "file": file}
            metadata.write_text(json.dumps(facts, ensure_ascii=False) + "\n")
            registered = provider("product", "register", "--space", self.space_id, "--metadata", metadata)
            options = ["--file", DATA / file, "--metadata", metadata, "--policy", self.policy[key]]
            published = provider("product", "publish", registered["product"], *options)
            self.product[key], self.version[key] = registered["product"], published["version"]
            done += [("provider", registered), ("provider", published)]
            digests += [(zh, en, name, value) for name, value in published["digests"].items()]
        self.writes(*done)
        self.table(("产品", "product", "算法 algorithm", "内容摘要 digest"), digests)
        self.app.console.print(f"数据来源 data: {SOURCE}")

    def prices(self) -> None:
        self.step("登记价目表与分账方案", "Register rate cards and the split")
        provider, home = self.parties["provider"], self.folder / "provider"
        cards = {
            # calls: 200 free, then two tiers; rows: 2.80 yuan a thousand.
            "feed": {
                "meters": [
                    {"free": 200, "tiers": [{"upTo": 1000, "price": "0.010"}, {"price": "0.006"}]},
                    {"per": 1000, "tiers": [{"price": "2.80"}]},
                ]
            },
            "file": {"meters": [{"tiers": [{"price": "12.3456"}]}]},
        }
        self.card: dict[str, str] = {}
        done = []
        for key, card in cards.items():
            path = home / f"{key}.card.json"
            path.write_text(json.dumps(card) + "\n")
            money = ["--currency", "CNY"] if key == "file" else []
            registered = provider("price", "card", path, *money)
            self.card[key] = registered["rateCard"]
            done.append(("provider", registered))
        parts = {"holder": 3500, "provider": 5000, "operator": 1500}
        shares = [x for name, bps in parts.items() for x in ("--share", f"{self.address[name]}={bps}")]
        split = provider("price", "split", *shares)
        self.split = split["split"]
        self.writes(*done, ("provider", split))
        self.table(
            ("产品 product", "计量 meter", "价格 price (CNY)"),
            [
                ("feed", "calls 调用", "前 200 次免费 first 200 free; 0.010 to 1,000; then 0.006"),
                ("feed", "rows 行", "2.80 / 1,000 行 rows"),
                ("file", "calls 下载", "12.3456 / 次 download"),
            ],
        )
        named = ((PARTIES[name], name, f"{bps / 100:.0f} %") for name, bps in parts.items())
        self.table(("分账 split", "payee", "share"), named)

    def offered(self, key: str) -> list[str]:
        named = ["--product", self.product[key], "--version", self.version[key], "--card", self.card[key]]
        return ["--space", self.space_id, *named, "--policy", str(self.policy[key])]

    def escrowed(self) -> None:
        self.step("要约、承诺、存款、预留、开通", "Offer, acceptance, deposit, reservation, opening (escrowed)")
        provider, consumer = self.parties["provider"], self.parties["consumer"]
        offer, opening = self.folder / "provider" / "offer.json", self.folder / "consumer" / "opening.json"
        terms = self.offered("feed")
        limits = ["--quota", f"{self.uses + 500},{(self.uses + 500) * 24}", "--credit-window", f"{self.uses},0"]
        allowed = ["--purpose", "RESEARCH", "--modality", "API_PULL", "--thaw-hours", "24"]
        provider("authorization", "offer", *terms, "--split", self.split, *limits, *allowed, "-o", offer)
        minted = consumer("account", "mint", "--amount", "500")
        deposited = consumer("account", "deposit", "--amount", "300")
        accepted = consumer("authorization", "accept", offer, "--reserve", "200", "-o", opening)
        opened = consumer("authorization", "open", opening)
        self.feed = accepted["authorization"]
        self.writes(("consumer", minted), ("consumer", deposited), ("consumer", opened))
        self.app.console.print(f"授权 authorization {self.feed}")

    def use_and_settle(self, processes: Processes) -> None:
        self.step("逐次计量使用（真实 HTTP）", "Metered uses, each a real HTTP call")
        provider, consumer = self.parties["provider"], self.parties["consumer"]
        home = self.folder / "provider"
        config = home / "gateway.json"
        sources = [
            {
                "version": self.version[key],
                "file": str((DATA / file).resolve()),
                "kind": kind,
                "policy": self.policy[key].name,
            }
            for key, file, kind in (("feed", HOURLY, "rows"), ("file", DAILY, "file"))
        ]
        config.write_text(json.dumps({"sources": sources}) + "\n")
        options = [
            "--home",
            str(home),
            "--wallet",
            str(home / "wallet.json"),
            "--password-file",
            str(home / "password"),
        ]
        command = [sys.executable, "-m", "ledger.cli.main", "--json", *options, "gateway", "--config", str(config)]
        self.gateway = processes.server("gateway", [*command, "--port", "0"])

        first = self.uses * 3 // 4
        with self.waiting(f"{first:,} 次使用 uses"):
            batch = self.run_uses(first, "2010-01-01T01:00:00")
        signed = consumer("head", "sign", self.feed, "--gateway", self.gateway)
        settled = provider("settle", "one", self.feed)
        done = [("provider", settled)]
        rows = [self.head_row(batch, signed, settled, "provider 提供方")]
        with self.waiting(f"{self.uses - first:,} 次使用 uses"):
            batch = self.run_uses(self.uses - first, "2010-07-01T00:00:00")
        signed = consumer("head", "sign", self.feed, "--gateway", self.gateway)
        handed = self.folder / "relayer" / "head.json"
        consumer("head", "export", self.feed, "-o", handed)
        relayed = self.parties["relayer"]("settle", "relay", handed)
        rows.append(self.head_row(batch, signed, relayed, "relayer 第三方"))
        done.append(("relayer", relayed))
        columns = ("使用 uses", "每秒 a second", "叶 leaves", "累计 units", "应付 due", "已付 paid", "提交 settled by")
        self.table(columns, rows)
        self.writes(*done)

    def run_uses(self, count: int, start: str) -> dict[str, Any]:
        options = ["--gateway", self.gateway, "--version", self.version["feed"], "--purpose", "RESEARCH"]
        many = ["--count", count, "--start", start, "--step-hours", 2, "--limit", 24]
        result: dict[str, Any] = self.parties["consumer"]("use", "run", self.feed, *options, *many)
        return result

    def head_row(self, batch: Any, signed: Any, settled: Any, by: str) -> Sequence[Any]:
        args = settled["settled"][0]
        return (
            f"{batch['uses']:,}",
            f"{batch['perSecond']:,.0f}",
            f"{int(signed['head']['size']):,}",
            " / ".join(f"{int(n):,}" for n in signed["head"]["units"][:2]),
            f"{format_yuan(int(args['due']))} CNY",
            f"{format_yuan(int(args['paid']))} CNY",
            by,
        )

    def shares(self) -> None:
        self.step("三方分账并提取", "Revenue split to three payees and withdrawn")
        done, rows = [], []
        for name in ("holder", "provider", "operator"):
            paid = self.parties[name]("share", "pay", "--split", self.split)
            done.append((name, paid))
            balance = self.read("DemoYuan", "balanceOf", self.address[name])
            rows.append((PARTIES[name], name, paid["amount"], f"{format_yuan(balance)} CNY"))
        self.table(("收款方", "payee", "分账 share", "钱包余额 wallet balance"), rows)
        self.writes(*done)

    def revoke(self) -> None:
        self.step("撤销授权，下一次使用被拒绝并留痕", "Revoke; the next use is refused, and the refusal is recorded")
        revoked = self.parties["provider"]("authorization", "revoke", self.feed, "--reason", "MISUSE")
        consumer = self.parties["consumer"]
        options = ["--gateway", self.gateway, "--version", self.version["feed"], "--purpose", "RESEARCH"]
        refused = consumer.ask("use", "get", self.feed, *options)
        error = refused.get("error", {})
        if error.get("code") != "use_refused" or error["details"]["reason"] != "REVOKED":
            raise VerificationFailed(f"a use after revocation was not refused: {refused}")
        signed = consumer("head", "sign", self.feed, "--gateway", self.gateway)
        settled = self.parties["provider"]("settle", "one", self.feed)
        leaf = error["details"]["leaf"]
        self.table(
            ("拒绝原因 reason", "说明 message", "用量日志 leaf"), [(error["details"]["reason"], error["message"], leaf)]
        )
        self.writes(("provider", revoked), ("provider", settled))
        self.app.console.print(f"含拒绝记录的用量头 head with the refusal: {int(signed['head']['size']):,} 叶 leaves")

    def invoiced(self) -> None:
        self.step("第二份授权：发票与银行结算（境内模式）", "A second authorization, invoiced: CNY by bank")
        provider, consumer = self.parties["provider"], self.parties["consumer"]
        offer, opening = self.folder / "provider" / "offer-file.json", self.folder / "consumer" / "opening-file.json"
        terms = self.offered("file")
        allowed = ["--purpose", "RESEARCH", "--modality", "DATASET", "--quota", "100", "--thaw-hours", "24"]
        provider("authorization", "offer", *terms, "--split", self.split, *allowed, "--invoiced", "-o", offer)
        accepted = consumer("authorization", "accept", offer, "-o", opening)
        opened = provider("authorization", "open", opening)
        self.file = accepted["authorization"]
        options = ["--gateway", self.gateway, "--version", self.version["file"], "--purpose", "RESEARCH"]
        consumer("use", "run", self.file, *options, "--count", DOWNLOADS, "--connections", 1)
        consumer("head", "sign", self.file, "--gateway", self.gateway)
        settled = provider("settle", "one", self.file)
        bill = provider("bill", "show", self.file)
        amount = format_fen(int(bill["payableFen"])).replace(",", "")
        reference = "CMB-20260731-000042"
        claimed = consumer("payment", "claim", self.file, "--reference", reference, "--amount", amount)
        recorded = provider("payment", "record", self.file, "--reference", reference, "--amount", amount)
        self.writes(
            ("provider", opened),
            ("provider", settled),
            ("consumer", claimed),
            ("provider", recorded),
        )
        self.app.console.print(f"授权 authorization {self.file} · 下载 downloads {DOWNLOADS}")

    def books(self) -> None:
        self.step("账单与对账单，与链上逐分核对", "Bills and statement, equal to the chain to the last unit")
        provider = self.parties["provider"]
        rows: list[Sequence[Any]] = []
        for key, authorization, zh in (("feed", self.feed, "托管 escrowed"), ("file", self.file, "发票 invoiced")):
            bill = provider("bill", "show", authorization)
            for line in bill["lines"]:
                tier = "免费 free" if line["tier"] is None else f"阶梯 tier {line['tier'] + 1}"
                price = f"{format_yuan(int(line['price']))} / {int(line['unitScale']):,}"
                leaves = f"{line['firstLeaf']}–{line['lastLeaf']}"
                amount = format_yuan(int(line["amount"]))
                rows.append((zh, f"{key} #{line['meter']}", tier, f"{int(line['units']):,}", price, amount, leaves))
            self.same(f"{key} due", int(bill["due"]), self.due_on_chain(key, authorization))
            total = f"[bold]{format_yuan(int(bill['due']))}[/]"
            rows.append((zh, "应付 due", "", "", "", total, short(bill["digest"])))
            if bill["payableFen"] is not None:
                note = f"{int(bill['roundingUy']) / UY_PER_FEN:+.4f} 分 fen"
                rows.append((zh, "开票 payable", "", "", "", format_fen(int(bill["payableFen"])), note))
        self.table(("方式 mode", "计量 meter", "阶梯 tier", "用量 units", "单价 price", "金额 CNY", "叶 leaves"), rows)

        block = self.chain.block("latest")
        assert block is not None
        month = datetime.fromtimestamp(block.timestamp, SHANGHAI).strftime("%Y-%m")
        rows = []
        for name in ("provider", "consumer", "holder", "operator"):
            statement = self.parties[name]("bill", "statement", "--month", month)
            for line in statement["lines"]:
                key = "feed" if line["authorization"] == self.feed else "file"
                self.same(f"{name} statement {key}", int(line["due"]), self.due_on_chain(key, line["authorization"]))
                due, paid = (format_yuan(int(line[part])) for part in ("due", "paid"))
                rows.append((PARTIES[name], name, line["mode"], line["role"], due, paid))
            share = sum(int(part["amount"]) for part in statement["shares"])
            if share:
                self.same(f"{name} shares", share, self.read("DemoYuan", "balanceOf", self.address[name]))
                rows.append((PARTIES[name], name, "escrowed", "payee", "", format_yuan(share)))
        self.table((f"对账单 statement {month}", "party", "mode", "role", "应付 due", "已付 paid"), rows)
        self.app.console.print(
            "[green]✓[/] 账单、对账单与合约金额一致 bills, statements and contracts agree to the unit"
        )

    def finish(self) -> None:
        self.step("结算窗口结束，释放余款", "The settlement window ends; what is left goes back")
        consumer = self.parties["consumer"]
        # A local chain's clock can be moved; the window itself is the real one of 24 hours.
        self.chain.rpc("evm_increaseTime", 24 * 3600 + 60)
        finalized = consumer("authorization", "finalize", self.feed)
        free = self.read("UsageLedger", "freeOf", self.address["consumer"], self.deployment.address("DemoYuan"))
        amount = format_yuan(free).replace(",", "")
        withdrawn = consumer("account", "withdraw", "--amount", amount)
        left = self.read("DemoYuan", "balanceOf", self.deployment.address("UsageLedger"))
        self.writes(("consumer", finalized), ("consumer", withdrawn))
        self.same("tokens left in the ledger", left, 0)
        self.app.console.print(f"使用方取回 consumer took back {format_yuan(free)} CNY; 合约余额 ledger holds {left}")
        checked = self.parties["provider"]("mirror", "fsck")
        self.app.console.print(
            f"[green]✓[/] 镜像重建一致 mirror equals its rebuild at block {checked['block']}, {checked['digest'][:16]}…"
        )

    def export(self, keep: Path) -> None:
        self.step("导出审计包", "Export the audit bundle")
        chosen = ["--authorization", self.feed, "--authorization", self.file]
        made = self.parties["provider"]("audit", "export", *chosen, "-o", keep)
        self.app.console.print(f"{made['files']} 个文件 files in {keep}")

    def verify(self, keep: Path) -> None:
        self.step("独立验证：无节点、无数据库", "Verify in a process of its own: no node, no database")
        command = [sys.executable, "-m", "ledger.audit.verify"]
        done = subprocess.run([*command, str(keep)], capture_output=True, text=True, check=False)  # noqa: S603
        self.app.console.print(done.stdout.rstrip(), highlight=False)
        if done.returncode != 0:
            raise VerificationFailed("the audit bundle does not verify")
        copy = self.folder / "audit-bundle-tampered"
        shutil.copytree(keep, copy)
        leaves = copy / "data" / "authorizations" / self.feed / "leaves.jsonl"
        content = bytearray(leaves.read_bytes())
        at = content.index(b'"units":["1"', len(content) // 2) + len(b'"units":["')
        content[at] = ord("9")
        leaves.write_bytes(content)
        self.step("改动一个字节再验证", "One byte changed, verified again")
        done = subprocess.run([*command, str(copy)], capture_output=True, text=True, check=False)  # noqa: S603
        self.app.console.print(done.stdout.rstrip(), highlight=False)
        if done.returncode != 1 or "leaf" not in done.stdout or "leaves.jsonl" not in done.stdout:
            raise VerificationFailed("a changed byte went unnoticed")

    # -------------------------------------------------------------------------------------- chain, directly

    def read(self, contract: str, function: str, *arguments: str) -> Any:
        """A contract read, past mirror and API: what the books are compared with."""
        return self.deployment.read(self.chain, contract, function, *arguments)

    def due_on_chain(self, key: str, authorization: str) -> int:
        """What the contract says: paid from the reservation (nothing is in arrears), or due on invoice."""
        if key == "feed":
            return int(self.read("UsageLedger", "reservationOf", authorization)["paid"])
        return int(self.read("InvoiceLedger", "invoicedOf", authorization)["due"])

    def same(self, what: str, mine: int, chain: int) -> None:
        if mine != chain:
            raise VerificationFailed(f"{what}: the books say {mine}, the chain {chain}")
