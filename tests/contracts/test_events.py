from modules.contracts.events import EventBus, IncidentOpened, RuntimeStateChanged


def test_what_a_listener_publishes_is_heard_after_the_event_that_it_answers():
    bus = EventBus()
    heard = []

    def answers(event):
        if event.kind == "incident_opened":
            bus.publish(RuntimeStateChanged(current="answered"))

    bus.listen(answers)
    bus.listen(lambda event: heard.append(event.id))
    bus.publish(IncidentOpened(service="api", incident="api-1", reason="broken"))
    assert heard == [1, 2]
    assert [event.id for event in bus.recent()] == heard


def test_a_listener_that_raises_keeps_nothing_from_the_others(caplog):
    bus = EventBus()
    heard = []
    bus.listen(lambda event: 1 / 0)
    bus.listen(heard.append)
    event = bus.publish(RuntimeStateChanged(current="running"))
    assert heard == [event]
    assert "a listener failed on runtime_state_changed" in caplog.text
