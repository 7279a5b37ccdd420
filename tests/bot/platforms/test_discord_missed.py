"""What was written in Discord while nobody listened, in simcord's offline Discord."""

import asyncio

import pytest

from bot.platforms import Incoming
from bot.platforms.discord import missed
from tests.bot.fakes.discord_stage import Daemon, Server, running
from tests.bot.fakes.discord_world import DiscordWorld


async def test_what_was_written_while_nobody_listened_is_taken_in_after_a_start() -> None:
    async with DiscordWorld() as world:
        async with running(world) as (daemon, env):
            server = Server(env)
            cara = env.create_user("cara")
            await server.anna.send(server.channel, "hello all")
            await cara.send_dm("are you there?")
            last = [await daemon.next(), await daemon.next()]
        known = {message.chat: message.message_id for message in last}
        await server.bob.send(server.channel, f"{server.me.mention} and now?")
        await server.anna.send(server.channel, "nobody asked")
        await cara.send_dm("hello??")
        async with running(world, known | {"12345678901234567": "1", "not-a-number": "x"}) as (daemon, _):
            await server.anna.send(server.channel, "live again")
            texts = [
                (message.text, message.kind, message.mentions_bot)
                for message in [await daemon.next() for _ in range(4)]
            ]
    assert texts[:3] == [("and now?", "group", True), ("nobody asked", "group", False), ("hello??", "dm", True)]
    assert texts[3][0] == "live again"
    assert daemon.received.empty()


async def test_what_is_older_than_a_day_is_not_taken_in_after_a_start() -> None:
    async with DiscordWorld() as world:
        async with running(world) as (daemon, env):
            cara = env.create_user("cara")
            await cara.send_dm("are you there?")
            first = await daemon.next()
        await cara.send_dm("hello??")
        async with running(world, {first.chat: first.message_id}, days=2) as (daemon, _):
            await cara.send_dm("good morning")
            assert (await daemon.next()).text == "good morning"


async def test_all_that_was_missed_is_taken_in_oldest_first() -> None:
    async with DiscordWorld() as world:
        async with running(world) as (daemon, env):
            cara = env.create_user("cara")
            await cara.send_dm("are you there?")
            first = await daemon.next()
        for number in range(250):
            await cara.send_dm(str(number))
        async with running(world, {first.chat: first.message_id}) as (daemon, _):
            await cara.send_dm("live")
            assert await daemon.texts(251) == [*map(str, range(250)), "live"]


async def test_what_arrives_before_discord_is_ready_waits_for_what_was_missed() -> None:
    async with DiscordWorld() as world:
        async with running(world) as (daemon, env):
            cara = env.create_user("cara")
            await cara.send_dm("are you there?")
            first = await daemon.next()
        await cara.send_dm("missed")
        world.holds_ready = True
        async with running(world, {first.chat: first.message_id}) as (daemon, _):
            await cara.send_dm("live")
            await daemon.settle()
            assert daemon.received.empty()
            await world.become_ready()
            assert await daemon.texts(2) == ["missed", "live"]
            await daemon.settle()
            assert daemon.received.empty()


async def test_a_chat_that_cannot_be_fetched_holds_its_own_messages_only() -> None:
    async with DiscordWorld() as world:
        async with running(world) as (daemon, env):
            server = Server(env)
            cara = env.create_user("cara")
            await cara.send_dm("are you there?")
            await server.anna.send(server.channel, "hello all")
            known = {one.chat: one.message_id for one in [await daemon.next(), await daemon.next()]}
        dm = str(cara.dm_channel.id)
        await cara.send_dm("missed")
        await server.bob.send(server.channel, "missed, too")
        env.inject_error("GET", f"/channels/{dm}/messages", status=503, times=2)
        async with running(world, known, wakes=False) as (daemon, _):
            assert await daemon.texts(1) == ["missed, too"]
            await cara.send_dm("live")
            await server.anna.send(server.channel, "live, too")
            assert await daemon.texts(1) == ["live, too"]
            await daemon.settle()
            assert daemon.received.empty()  # killed now, it would find "missed" and "live" after the next start
            daemon.may_wake.set()
            assert await daemon.texts(2) == ["missed", "live"]
            first, second = daemon.waits
            assert first <= 1 <= second <= 2
            await cara.send_dm("and again")
            assert await daemon.texts(1) == ["and again"]


async def test_a_fetch_that_breaks_off_goes_on_where_it_stopped() -> None:
    async with DiscordWorld() as world:
        async with running(world) as (daemon, env):
            cara = env.create_user("cara")
            await cara.send_dm("are you there?")
            first = await daemon.next()
        for number in range(150):
            await cara.send_dm(str(number))
        async with running(world, {first.chat: first.message_id}, room=1) as (daemon, _):
            half = await daemon.texts(50)
            env.inject_error("GET", f"/channels/{first.chat}/messages", status=500)
            assert half + await daemon.texts(100) == [*map(str, range(150))]
            assert len(daemon.waits) == 1


async def test_the_first_message_of_an_allowed_chat_is_found_after_a_start() -> None:
    async with DiscordWorld() as world:
        async with running(world) as (daemon, env):
            server, other = Server(env), Server(env)
            cara, dora = env.create_user("cara"), env.create_user("dora")
            quiet = server.guild.create_text_channel("quiet")
            await server.anna.send(quiet, "long ago")
            await server.anna.send(server.channel, "hello all")
            known = {one.chat: one.message_id for one in [await daemon.next(), await daemon.next()]}
            known.pop(str(quiet.id))
        lobby = server.guild.create_text_channel("lobby")
        thread = env.backend.create_thread(server.channel.id, owner_id=server.anna.id, name="plans")
        await server.anna.send(lobby, f"{server.me.mention} first in the lobby")
        await cara.send_dm("first in private")
        await server.bob.send(server.channel.threads[0], "first in the thread")
        await dora.send_dm("not allowed")
        await other.anna.send(other.channel, "not allowed")
        env.http_requests.clear()
        async with running(world, known, allow=(server.guild.id, cara.id)) as (daemon, _):
            await server.anna.send(server.channel, "live")
            got = [await daemon.next() for _ in range(4)]
            await daemon.settle()
        assert [one.text for one in got] == ["first in the lobby", "first in private", "first in the thread", "live"]
        assert [one.chat for one in got[:3]] == [str(lobby.id), str(cara.dm_channel.id), str(thread.id)]
        asked = {one.path.split("/")[2] for one in env.http_requests if one.path.endswith("/messages")}
        assert asked == {str(one) for one in (lobby.id, thread.id, cara.dm_channel.id, server.channel.id)}
        assert daemon.received.empty()


async def test_an_empty_store_fetches_nothing() -> None:
    async with DiscordWorld() as world:
        async with running(world) as (daemon, env):
            server = Server(env)
            cara = env.create_user("cara")
        await server.anna.send(server.channel, "hello all")
        await cara.send_dm("are you there?")
        env.http_requests.clear()
        async with running(world, allow=(server.guild.id, cara.id)) as (daemon, _):
            await server.anna.send(server.channel, "live")
            assert await daemon.texts(1) == ["live"]
        assert not [one for one in env.http_requests if "/messages" in one.path or one.method == "POST"]


async def test_chats_without_a_stored_message_are_committed_in_order_of_time() -> None:
    """Killed in the middle, the newest stored message says up to where all of them are complete."""
    async with DiscordWorld() as world:
        async with running(world) as (daemon, env):
            server = Server(env)
            await server.anna.send(server.channel, "hello all")
            first = await daemon.next()
        lobby, kitchen = (server.guild.create_text_channel(name) for name in ("lobby", "kitchen"))
        for number in range(6):
            await server.anna.send(lobby if number % 2 else kitchen, str(number))
        await server.anna.send(server.channel, "in a known chat")
        env.inject_error("GET", f"/channels/{lobby.id}/messages", status=500)
        async with running(world, {first.chat: first.message_id}, allow=(server.guild.id,)) as (daemon, _):
            assert await daemon.texts(7) == [*map(str, range(6)), "in a known chat"]
            assert len(daemon.waits) == 1


async def test_a_first_direct_message_is_found_with_the_next_one() -> None:
    async with DiscordWorld() as world:
        async with running(world) as (daemon, env):
            server = Server(env)
            cara = env.create_user("cara")
            await server.anna.send(server.channel, "hello all")
            first = await daemon.next()
        await cara.send_dm("first")
        env.inject_error("POST", "/users/@me/channels", status=403)
        async with running(world, {first.chat: first.message_id}, allow=(cara.id,)) as (daemon, _):
            await daemon.settle()
            await cara.send_dm("second")
            await cara.send_dm("third")
            assert await daemon.texts(3) == ["first", "second", "third"]


async def test_what_was_held_when_the_connection_broke_is_not_lost() -> None:
    async with DiscordWorld() as world:
        async with running(world) as (daemon, env):
            cara = env.create_user("cara")
        world.holds_ready = True
        async with running(world, allow=(cara.id,)) as (daemon, _):
            await cara.send_dm("held")
            world.holds_ready = False
            world.lose(ConnectionResetError("cable cut"))
            await daemon.settle()
            await world.env()
            await cara.send_dm("live")
            assert await daemon.texts(2) == ["held", "live"]


async def test_a_message_that_always_fails_is_skipped_after_three_deliveries(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with DiscordWorld() as world:
        daemon = Daemon(world)

        async def receive(incoming: Incoming) -> None:
            if incoming.text == "poison":
                raise KeyError("a bug")
            await daemon.received.put(incoming)

        task = asyncio.create_task(daemon.platform.run(receive, daemon.connected, daemon.newest))
        env = await world.env()
        anna = env.create_user("anna")
        poison = await anna.send_dm("poison")
        await anna.send_dm("harmless")
        for _ in range(2):
            with pytest.raises(KeyError):
                await task
            world.holds_ready = True
            task = asyncio.create_task(daemon.platform.run(receive, daemon.connected, daemon.newest))
            await world.env()
            await world.become_ready()
        assert await daemon.texts(1) == ["harmless"]
        assert f"skipped message {poison.id}" in caplog.text
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await daemon.platform.close()


async def test_no_more_than_some_channels_are_asked_those_written_in_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(missed, "MAX_CHANNELS", 2)
    async with DiscordWorld() as world:
        async with running(world) as (daemon, env):
            server = Server(env)
            await server.anna.send(server.channel, "hello all")
            first = await daemon.next()
        for number in range(4):
            await server.anna.send(server.guild.create_text_channel(f"room-{number}"), str(number))
        async with running(world, {first.chat: first.message_id}, allow=(server.guild.id,)) as (daemon, _):
            assert await daemon.texts(2) == ["2", "3"]
            await daemon.settle()
            assert daemon.received.empty()
    assert "2 more channels were not asked" in caplog.text
