"""What was written in Discord while nobody listened, in simcord's offline Discord."""

from tests.bot.fakes.discord_stage import Server, running
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
